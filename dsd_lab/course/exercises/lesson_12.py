"""Lesson 12: where large noise takes an edit, DDS's gradient, and what PDS holds on to."""

from functools import cache

import torch

from ...methods import DDS
from ...priors import GaussianMixture
from ...schedule import NoiseSchedule
from .questions import DTYPE, Given, Plane, conditional, one_too_many
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma = SCHEDULE.alpha, SCHEDULE.sigma
SOURCE, FROM, TO = 1.0, (0.0, 2.0), (6.0, 10.0)  # a point; the means of two prompts' data


def where_dds_ends() -> float:
    """Where DDS rests at large noise, where a prompt's prediction is the mean of its data."""
    points = {"from": [[v, 0.0] for v in FROM], "to": [[v, 0.0] for v in TO]}
    prior, t = GaussianMixture(points, width=0.0), 999
    n = torch.zeros(1, 2, dtype=DTYPE)
    source = torch.tensor([[SOURCE, 0.0]], dtype=DTYPE)
    x = source.clone()
    for _ in range(60):
        e_x, e_source = (
            prior.predict_noise(SCHEDULE.add_noise(at, t, n), t, prior.condition(name), 1.0)
            for at, name in ((x, "to"), (source, "from"))
        )
        x = x - 0.5 * sigma[t] / alpha[t] * (e_x - e_source)
    return float(x[0, 0])


PREDICT = Predict(
    "12.1",
    "1 + (8 - 1): large noise sees means only, and DDS adds their difference to the source.",
    where_dds_ends,
    {
        "that is the source; it does move.": lambda: SOURCE,
        "that is the difference of the means; it is added to the source.": lambda: (
            sum(TO) / 2 - sum(FROM) / 2
        ),
        "that is the target's nearest point; to tell points apart takes small noise.": lambda: TO[
            0
        ],
        "that is the target's farther point; to tell points apart takes small noise.": lambda: TO[
            1
        ],
        "the source's own prediction, the mean of its data, has to be subtracted.": lambda: (
            SOURCE + sum(TO) / 2
        ),
        "the difference is subtracted; the edit goes towards the target.": lambda: (
            SOURCE - (sum(TO) / 2 - sum(FROM) / 2)
        ),
    },
    within=0.1,
)


@cache
def ask(seed: int) -> Question:
    plane = Plane.of(seed)
    method = DDS(cfg=plane.cfg, source_prompt="other")
    state = method.begin(plane.prior, plane.cond, plane.e_star, 10, source=plane.e_star)
    right, _, _ = method.gradient(state, plane.x, 0, Given(plane.t, plane.n))

    def predict(x_t, t, prompt):
        cond = plane.prior.condition({"target": "asked for", "source": "other"}[prompt])
        return tuple(plane.prior.predict_noise(x_t, t, cond, cfg) for cfg in (0.0, 1.0))

    arguments = {"predict": predict, "x": plane.x, "source": plane.e_star, "n": plane.n}
    return Question(arguments | {"t": plane.t, "cfg": plane.cfg}, right)


def dds_of(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    guided=lambda e_u, e_c, cfg: e_u + cfg * (e_c - e_u),
    second=lambda e_u, e_c, cfg: e_u + cfg * (e_c - e_u),
    asked=("target", "source"),
    point=lambda x, source: source,
    noise=lambda n: n,
    sign=1,
):
    """DDS's gradient with some of its parts replaced."""

    def gradient(predict, x, source, n, t, cfg):
        e_x = guided(*predict(a(t) * x + s(t) * n, t, asked[0]), cfg)
        source_t = a(t) * point(x, source) + s(t) * noise(n)
        e_source = second(*predict(source_t, t, asked[1]), cfg)
        return sign * (e_x - e_source)

    return gradient


def sds(predict, x, source, n, t, cfg):
    e_u, e_c = predict(alpha[t] * x + sigma[t] * n, t, "target")
    return e_u + cfg * (e_c - e_u) - n


IMPLEMENT = Implement(
    "12.2",
    "this is the library's DDS, to rounding.",
    ask,
    {
        "this is SDS, which subtracts n; DDS subtracts what the model says of the source.": sds,
        "the sign is wrong: x's prediction comes first, then the source's.": dds_of(sign=-1),
        "the source is asked with the target's prompt; it has its own.": dds_of(
            asked=("target", "target")
        ),
        "the prompts are interchanged: x is asked with the target's.": dds_of(
            asked=("source", "target")
        ),
        "both predictions are of x; the second is of the noisy source.": dds_of(
            point=lambda x, source: x
        ),
        "the source needs the same noise as x, so that its error cancels.": dds_of(
            noise=lambda n: -n
        ),
        "alpha and sigma are interchanged: x_t = alpha_t x + sigma_t n.": dds_of(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "guidance is off by one: e_g = e_u + cfg (e_c - e_u) starts from e_u, not from e_c.": (
            dds_of(guided=one_too_many, second=one_too_many)
        ),
        "guidance is missing: these are the plain conditional predictions.": dds_of(
            guided=conditional, second=conditional
        ),
        "the source's prediction needs the same guidance.": dds_of(second=conditional),
    },
    fresh="Both predictions need the noise n that is given.",
)

EXPLAIN = Explain(
    "12.3",
    "its z holds the picture's next point x_p too, whose part that is no prediction pulls x back "
    "to the source.",
    "e",
    {
        "a": "both noise the source with the same n; what differs is what they compare.",
        "b": "both were run with the same guidance.",
        "c": "both draw t alike, between the same ends.",
        "d": "both ask the source with its own prompt.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)
