"""The works behind the numbers: a line of text and a BibTeX entry each."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class Reference:
    """One work.

    Attributes:
        about: Table or training objective that rests on it, or nothing if all do.
        text: Authors, title, place.
        bibtex: The entry to paste.
    """

    about: str
    text: str
    bibtex: str


REFERENCES = (
    Reference(
        "",
        "Xie et al. 2023, Revealing the Dark Secrets of Masked Image Modeling, CVPR "
        "(arXiv 2205.13543)",
        """@inproceedings{xie2023revealing,
  author    = {Xie, Zhenda and Geng, Zigang and Hu, Jingcheng and Zhang, Zheng and Hu, Han and Cao, Yue},
  title     = {Revealing the Dark Secrets of Masked Image Modeling},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {14475--14485},
  year      = {2023}
}""",  # noqa: E501 - an entry is pasted as it is
    ),
    Reference(
        "distance",
        "Dosovitskiy et al. 2021, An Image is Worth 16\N{MULTIPLICATION SIGN}16 Words, ICLR "
        "(arXiv 2010.11929)",
        """@inproceedings{dosovitskiy2021image,
  author    = {Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and others},
  title     = {An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2021}
}""",
    ),
    Reference(
        "distance",
        "Raghu et al. 2021, Do Vision Transformers See Like Convolutional Neural Networks?, "
        "NeurIPS (arXiv 2108.08810)",
        """@inproceedings{raghu2021vision,
  author    = {Raghu, Maithra and Unterthiner, Thomas and Kornblith, Simon and others},
  title     = {Do Vision Transformers See Like Convolutional Neural Networks?},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2021}
}""",
    ),
    Reference(
        "cka",
        "Nguyen et al. 2021, Do Wide and Deep Networks Learn the Same Things?, ICLR "
        "(arXiv 2010.15327)",
        """@inproceedings{nguyen2021wide,
  author    = {Nguyen, Thao and Raghu, Maithra and Kornblith, Simon},
  title     = {Do Wide and Deep Networks Learn the Same Things? Uncovering How Neural Network
               Representations Vary with Width and Depth},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2021}
}""",
    ),
    Reference(
        "cka",
        "Song et al. 2012, Feature Selection via Dependence Maximization, JMLR 13",
        """@article{song2012feature,
  author  = {Song, Le and Smola, Alex and Gretton, Arthur and Bedo, Justin and Borgwardt, Karsten},
  title   = {Feature Selection via Dependence Maximization},
  journal = {Journal of Machine Learning Research},
  volume  = {13},
  pages   = {1393--1434},
  year    = {2012}
}""",
    ),
    Reference(
        "differences",
        "Benjamini and Hochberg 1995, Controlling the False Discovery Rate, JRSS B 57",
        """@article{benjamini1995controlling,
  author  = {Benjamini, Yoav and Hochberg, Yosef},
  title   = {Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple
             Testing},
  journal = {Journal of the Royal Statistical Society: Series B},
  volume  = {57},
  number  = {1},
  pages   = {289--300},
  year    = {1995}
}""",
    ),
    Reference(
        "simmim",
        "Xie et al. 2022, SimMIM: A Simple Framework for Masked Image Modeling, CVPR",
        """@inproceedings{xie2022simmim,
  author    = {Xie, Zhenda and Zhang, Zheng and Cao, Yue and Lin, Yutong and Bao, Jianmin and Yao, Zhuliang and Dai, Qi and Hu, Han},
  title     = {SimMIM: A Simple Framework for Masked Image Modeling},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {9653--9663},
  year      = {2022}
}""",  # noqa: E501 - an entry is pasted as it is
    ),
    Reference(
        "mae",
        "He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, CVPR",
        """@inproceedings{he2022masked,
  author    = {He, Kaiming and Chen, Xinlei and Xie, Saining and Li, Yanghao and Doll{\\'a}r, Piotr and Girshick, Ross},
  title     = {Masked Autoencoders Are Scalable Vision Learners},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {16000--16009},
  year      = {2022}
}""",  # noqa: E501 - an entry is pasted as it is
    ),
    Reference(
        "mocov3",
        "Chen et al. 2021, Training Self-Supervised Vision Transformers, ICCV",
        """@inproceedings{chen2021empirical,
  author    = {Chen, Xinlei and Xie, Saining and He, Kaiming},
  title     = {An Empirical Study of Training Self-Supervised Vision Transformers},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  pages     = {9640--9649},
  year      = {2021}
}""",
    ),
    Reference(
        "supervised",
        "Touvron et al. 2021, Training Data-Efficient Image Transformers, ICML",
        """@inproceedings{touvron2021training,
  author    = {Touvron, Hugo and Cord, Matthieu and Douze, Matthijs and Massa, Francisco and Sablayrolles, Alexandre and J{\\'e}gou, Herv{\\'e}},
  title     = {Training Data-Efficient Image Transformers and Distillation through Attention},
  booktitle = {International Conference on Machine Learning (ICML)},
  pages     = {10347--10357},
  year      = {2021}
}""",  # noqa: E501 - an entry is pasted as it is
    ),
)
SOFTWARE = """@software{{attnprobe,
  title   = {{attnprobe: measure what pre-trained vision transformers look at}},
  author  = {{{{The attnprobe authors}}}},
  version = {{{version}}}
}}"""


def cited_for(tables: Collection[str]) -> list[Reference]:
    """Return the works that tables rest on.

    >>> [reference.text[:3] for reference in cited_for(["distance"])]
    ['Xie', 'Dos', 'Rag']
    """
    return [item for item in REFERENCES if not item.about or item.about in tables]


def bibtex(tables: Collection[str]) -> str:
    """Return the entries to paste: this program, then the works that tables rest on."""
    own = SOFTWARE.format(version=version("attnprobe"))
    return "\n\n".join([own, *(reference.bibtex for reference in cited_for(tables))])
