"""From a run directory to a translator, and to runs made of it: averaged, quantised, of several, as word vectors."""
