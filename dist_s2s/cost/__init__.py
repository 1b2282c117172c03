"""What a training step of a sharded table costs, predicted: memory, bytes and time, from a machine's calibration.

id_traffic      which rows ranks ask for: expected numbers, at any size of the table
problem         what is asked: the table, its batches and the machines
memory          bytes that a rank holds, and bytes that it sends
coefficients    what a machine's work costs, as a file
work            how much there is to do in each part of a step
step_time       seconds of a step, part by part
measure, fit    the calibration: times real steps on this machine, and finds the coefficients
ranks           the processes in which it does so
"""
