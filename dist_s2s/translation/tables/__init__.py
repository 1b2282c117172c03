"""The sharded tables of a translator: making them, what a source looks up, tables of int8, rows that begin anew."""
