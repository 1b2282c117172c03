"""From the files of a corpus to a directory that training reads from the disk, and back from there.

    reading     blocks of the inputs to pairs, in worker processes; what is filtered by a pair alone
    selecting   what is filtered by the whole corpus: scripts, duplicates, leaks; and the splits
    sides       the tokenizers and vocabularies of both sides
    encoding    pairs to token ids, in worker processes
    joining     the blocks' ids to the files of the corpus
    prepared    the finished directory: what it holds, whether it is whole, and whether it fits a run

Each block's work lies in a file of its own until all is done, from which a preparation that was ended goes on.
"""
