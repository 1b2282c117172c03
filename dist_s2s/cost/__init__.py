"""Predict what a training step of one sharded table costs on hardware you don't have.

problem       the question: a table, its batches, and the machines
id_traffic    how many distinct rows a batch names
volume        bytes that a rank holds, and bytes that it sends: arithmetic
seconds       the time of a step: amounts × coefficients
calibration   the coefficients of a machine, as a file; calibrate measures them, on processes that ranks starts
layouts       which layout and transport is best; report prints it
"""
