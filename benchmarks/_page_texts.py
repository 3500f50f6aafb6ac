"""What docs/benchmarks.md says beside its tables."""

OPENING = """
# Benchmarks

Every number on this page is a row of [benchmarks/results.csv](../benchmarks/results.csv), which
names device, versions, commit and date; `python benchmarks/page.py` writes the page from them.

```sh
python benchmarks/run.py                                             # all sections, on a CPU
python benchmarks/run.py --device cuda --precision bf16 --batch 64   # on a GPU
python benchmarks/run.py --quick --no-save                           # below three minutes
```

A number in bold is a ratio to the floor of its table (the bare forward pass of the same model
over the same tensors, unless the section says otherwise): the median over rounds, with quartiles
in brackets. In a round every way runs once, in alternating order, so that what slows the machine
slows all of them. Before anything is timed the kernels are compared with float64 (`attnprobe
doctor`), and other codes' numbers with attnprobe's; what disagrees is not timed. Weights are
random and seeded: cost does not depend on them. `OMP_NUM_THREADS` sets the threads.
"""

CLOSING = """
## What this page does not say

Ratios of single rounds scatter on a shared machine; quartiles say by how much. Peak memory on a
CPU is the resident set, with what the allocator cannot give back. Rows with the mark + at the
commit were measured before the commit that holds them.
"""

SECTIONS = {
    "overhead": (
        "Measuring against the bare forward pass",
        """
*Per image* is what one more image costs: the time from the end of the first batch to the end of
the last, over the images between. *Whole run* has everything else too: hashing the images,
tables and intervals. What follows the last batch does not depend on image size or model width;
it is measured apart, for many images. *Capture alone* observes attention and computes nothing.
""",
    ),
    "kernels": (
        "Kernels on a GPU",
        """
The kernels alone on the tensors of one layer, beside `F.scaled_dot_product_attention` on the same
ones. *Together* makes the logits of all heads of a block of queries once; *pairs* makes them for
two heads at a time.
""",
    ),
    "peers": (
        "Against stored attention maps",
        """
Attention distance, entropy and KL between heads, by attnprobe's `analyze` with tables and
intervals, by timm's `AttentionExtract` with a loop over pairs of heads, and as published
analysis scripts have it: hooks, every map in a numpy array, statistics in numpy. The other two
are written for speed within their way: the matrix of patch distances is made once, logarithms
are shared by all pairs, and maps live for one batch only. They give per-image values and neither
tables nor intervals. Their numbers agree with attnprobe's under both conventions for prefix
keys; the timed runs drop prefix keys without rescaling rows. They bound probabilities below by
1e-12 before the logarithm, which lowers the KL of very peaked heads; attnprobe has no bound.
""",
    ),
    "cka": (
        "CKA against other packages",
        """
CKA between the blocks of two ViT-S, 12 layers each. attnprobe's side is two runs with their
tables and intervals, and the joint matrix of all 24 layers from the Gram matrices that runs
keep; the packages give the 12 x 12 values across the models only. torch_cka and cka_pytorch
flatten all tokens and average unbiased HSIC over mini-batches: the values agree with
`cka_tokens="flat"`. attnprobe's default compares the mean of the patches. ckatorch compares the
tokens within each image and keeps the last mini-batch; its estimator agrees on one mini-batch,
its matrix is another quantity. All run without gradients. The floor is the forward passes of
both models.
""",
    ),
    "memory": (
        "Memory against the number of tokens",
        """
One process a number. *Beyond the loaded model* leaves weights and images out. `AttentionExtract`
holds the maps of all layers at once, which grow with the square of the tokens.
""",
    ),
    "scaling": (
        "Several processes",
        """
`torchrun --nproc-per-node N -m attnprobe analyze`, from JPEG files, one thread or device a
process; the ratio is to one process, and the tables of all numbers of processes agree.
""",
    ),
    "files": (
        "From files to the page",
        """
JPEGs of 224 to 400 px a side, cut from the photographs in the box. *Decoded before* is the same
run over a tensor. A new process is timed from its start to its end and to the first character it
prints.
""",
    ),
    "step": (
        "A training step against the official codes",
        """
Forward, backward, clipping and AdamW on the same weights, images and masks
(`benchmarks/bench_step.py`); the ratio is to the official code's step. It refuses to time sides
whose losses differ.
""",
    ),
    "probe": (
        "The attention probe beside a training",
        """
What probes take of a training's time at the default interval (`benchmarks/bench_probe.py`). The
time is that of one update.
""",
    ),
}
