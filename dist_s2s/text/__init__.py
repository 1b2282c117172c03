"""From text files to padded batches of token ids: tokenizers, vocabulary, corpora, batches."""
