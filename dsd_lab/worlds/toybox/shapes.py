"""Signed distances to the solid shapes that toys are made of, and how far each shape reaches.

A distance takes points `p` (N, K, 3, P) in the shapes' own axes and sizes `s` (5, N, K, 1), and
gives (N, K, P), negative inside: N toys of K shapes each, at P points.
"""

import torch


def ball(p, s):
    """An ellipsoid of radii s[0], s[1], s[2]: exact for a ball, else close to the distance near the
    surface only.
    """
    radii = s[:3].permute(1, 2, 0, 3)
    least = radii.amin(2)
    scaled = p / radii
    length = _norm(scaled)
    distance = (length - 1) * (length / _norm(scaled / radii).clamp(min=1e-9)).maximum(least)
    return distance.maximum(-least)  # no inner point is farther from the surface


def box(p, s):
    """A box of half sizes s[0], s[1], s[2], grown by s[4] all round."""
    q = p.abs() - s[:3].permute(1, 2, 0, 3)
    return _norm(q.clamp(min=0)) + q.amax(2).clamp(max=0) - s[4]


def cone(p, s):
    """A flat-ended cone of radius s[0] at y = -s[2], s[1] at y = s[2], grown by s[4] all round."""
    x, y = _level(p), p[:, :, 1]
    low, high, half = s[:3]
    cap_x, cap_y = (x - torch.where(y < 0, low, high)).clamp(min=0), y.abs() - half
    step = ((high - x) * (high - low) + (half - y) * 2 * half) / ((high - low) ** 2 + 4 * half**2)
    step = step.clamp(0, 1)
    side_x, side_y = x - high + (high - low) * step, y - half + 2 * half * step
    inside = (side_x < 0) & (cap_y < 0)
    apart = torch.minimum(cap_x**2 + cap_y**2, side_x**2 + side_y**2).sqrt()
    return torch.where(inside, -apart, apart) - s[4]


def pill(p, s):
    """A round-ended cone: the balls of radius s[0] at y = -s[2] up to s[1] at y = s[2], and all
    between them.
    """
    x, y = _level(p), p[:, :, 1] + s[2]
    low, high, long = s[0], s[1], 2 * s[2]
    slope = ((low - high) / long).clamp(-0.99, 0.99)
    along = ((y - x * slope / (1 - slope**2).sqrt()) / long).clamp(0, 1)
    return (x * x + (y - along * long).square()).sqrt() - torch.lerp(low, high, along)


def ring(p, s):
    """A torus about y: a circle of radius s[0], s[1] thick."""
    return ((_level(p) - s[0]).square() + p[:, :, 1].square()).sqrt() - s[1]


def prism(p, s):
    """A triangle with corners (-s[0], 0), (s[0], 0) and (s[2], s[1]), s[3] thick along z each way.

    The distance to its farthest side: exact beside a side, too small (never too large) beside a
    corner.
    """
    x, y, z = p.unbind(2)
    half, high, lean, deep = s[:4]
    right, left = torch.stack([high, half - lean]), torch.stack([-high, half + lean])
    (rx, ry), (lx, ly) = right / right.norm(dim=0), left / left.norm(dim=0)
    sides = torch.maximum(
        torch.addcmul(x * rx, y, ry) - half * rx, torch.addcmul(x * lx, y, ly) + half * lx
    )
    return torch.maximum(torch.maximum(sides, -y), z.abs() - deep)


def _level(p):
    return p[:, :, 0].square().addcmul_(p[:, :, 2], p[:, :, 2]).sqrt_()


def _norm(p):
    x, y, z = p.unbind(2)
    return (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()


def reach(shape, u, s):
    """How far a shape of sizes s (5, N, K, 1) goes from its centre along unit directions u (N, K,
    3, M): (N, K, M).
    """
    x, y, z = u.unbind(2)
    level = torch.hypot(x, z)
    if shape == "ball":
        return _norm(u * s[:3].permute(1, 2, 0, 3))
    if shape == "box":
        return s[0] * x.abs() + s[1] * y.abs() + s[2] * z.abs() + s[4]
    if shape == "cone":
        return torch.maximum(s[0] * level - s[2] * y, s[1] * level + s[2] * y) + s[4]
    if shape == "pill":
        return torch.maximum(s[0] - s[2] * y, s[1] + s[2] * y)
    if shape == "ring":
        return s[0] * level + s[1]
    return torch.maximum(s[0] * x.abs(), s[2] * x + s[1] * y) + s[3] * z.abs()


SHAPES = {"ball": ball, "box": box, "cone": cone, "pill": pill, "ring": ring, "prism": prism}
