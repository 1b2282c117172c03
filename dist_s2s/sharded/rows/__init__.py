"""Which rank owns which row, and how rows become outputs: arithmetic without communication."""
