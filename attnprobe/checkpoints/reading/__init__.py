"""From the bytes of files to tensors and what is stated beside them; nothing in a file is run."""
