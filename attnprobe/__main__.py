"""`python -m attnprobe`, which torchrun and accelerate launch can start in many processes."""

from attnprobe.cli import main

main()
