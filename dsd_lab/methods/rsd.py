"""RSD: SDS whose seeds push each other apart (arXiv 2406.16683)."""

from dataclasses import dataclass

from .sds import SDS


@dataclass(frozen=True)
class RSD(SDS):
    """SDS with repulsion between the seeds of a batch.

        g = sigma_t^2 ( e_g(x_t, t) - n - repulsion sigma_t R )

    R, `repulsion.repel`, is that of the pictures themselves, in the prior's space, which is ours;
    the paper's compares features of a network. Of 1, 3, 10, 40 and 100 the default makes the most
    different pictures at a distance to the drawings of at most 1.3 times SDS's (`icons` at 32 px,
    "a tree", "a mushroom", "a soccer ball", 16 seeds). With this method the seeds of a batch depend
    on each other; it takes three seeds of a prompt at least, and pictures, not scenes. Without
    repulsion it is SDS.
    Source: arXiv 2406.16683.
    """

    repulsion: float = 10.0

    name = "RSD"
    for_scenes = False
