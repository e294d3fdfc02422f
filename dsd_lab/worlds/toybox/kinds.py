"""The toys of the toybox: a recipe for each kind, and what can be painted on a back.

A recipe works in units of its own, y up and front towards +z, gives most of the toy its coat
colour, and returns where its back is free: ((x, y, z), (half width, half height), depth). It asks
`t` for random numbers and adds shapes to it.
"""

import math

from .builder import (  # fmt: skip
    CARROT,
    CLAY,
    COCOA,
    COLOURS,
    CREAM,
    FLAME,
    GLASS,
    GOLD,
    INK,
    LEAF,
    ROSE,
    SIDES,
    SNOW,
    STEEL,
    TWIG,
    WOOD,
    around,
    mix,
)

CORNERS = tuple((x, z) for x in SIDES for z in SIDES)
LAYERS = {"p": 0.14, "c": 0.03, "t": 0.08, "l": 0.05}  # patty, cheese, tomato, lettuce: how thick

# Furniture


def chair(t, coat):
    wide, deep, high = t.between(0.34, 0.5), t.between(0.34, 0.44), t.between(0.28, 0.5)
    leg, splay, thick = t.between(0.4, 0.7), t.between(0.0, 0.12), t.between(0.045, 0.07)
    wood = t.pick(coat, coat, WOOD, mix(coat, INK, 0.35))
    t.box((0, 0, 0), (wide, 0.07, deep), coat, edge=0.04)
    for x, z in CORNERS:
        top = (x * (wide - 0.07), 0, z * (deep - 0.07))
        foot = (x * (wide - 0.07 + splay), -leg, z * (deep - 0.07 + splay))
        t.pill(top, foot, thick, thick * 0.8, wood)
    style = (
        t.pick("panel", "round")
        if t.twin
        else t.pick("panel", "round", "slats", "ladder", "slats", "ladder")
    )
    back, middle = -deep + 0.05, high + 0.14
    if style == "panel":
        t.box((0, middle, back), (wide, high, 0.06), coat, edge=0.055)
    elif style == "round":
        t.cone(
            (0, middle + 0.08, back - 0.06),
            (0, middle + 0.08, back + 0.06),
            wide * 1.02,
            wide * 1.02,
            coat,
            edge=0.03,
        )
    else:
        for x in SIDES:
            t.pill(
                (x * (wide - 0.05), 0, back),
                (x * (wide - 0.05), 2 * high + 0.1, back),
                0.06,
                0.06,
                coat,
            )
        t.box((0, 2 * high + 0.06, back), (wide, 0.1, 0.05), coat, edge=0.045)
        for i in range(3):
            if style == "slats":
                t.box(((i - 1) * wide * 0.5, high, back), (0.05, high, 0.035), coat)
            else:
                t.box((0, (i + 0.6) * high * 0.52, back), (wide, 0.06, 0.035), coat)
    if style in ("panel", "round"):
        for x in SIDES:
            t.pill((x * wide * 0.6, 0, back), (x * wide * 0.6, middle, back), 0.05, 0.05, coat)
    if t.chance(0.5):
        t.box((0, 0.1, 0.02), (wide * 0.85, 0.06, deep * 0.8), t.accent(coat), edge=0.055)
    if t.chance(0.3):
        for x in SIDES:
            t.pill((x * wide, 0.3, back), (x * wide, 0.3, deep * 0.7), 0.055, 0.055, coat)
            t.pill((x * wide, 0.3, deep * 0.7), (x * wide, 0, deep * 0.7), 0.05, 0.05, coat)
    if style == "round":
        return (0, middle + 0.08, back - 0.06), (wide * 0.8, wide * 0.8), 0.05
    return (0, middle, back - 0.06), (wide * 0.9, high * 0.9), 0.05


def table(t, coat):
    style = (
        t.pick("cloth", "desk")
        if t.twin
        else t.pick("legs", "round", "cloth", "legs", "round", "desk")
    )
    wide, deep, leg = t.between(0.5, 0.72), t.between(0.36, 0.5), t.between(0.55, 0.85)
    wood = t.pick(coat, mix(coat, INK, 0.3), WOOD)
    back = -deep
    if style == "round":
        wide = deep = t.between(0.48, 0.66)
        t.cone((0, -0.07, 0), (0, 0.05, 0), wide, wide, coat, edge=0.04)
        t.cone((0, -leg, 0), (0, 0, 0), 0.1, 0.08, coat)
        for x, _, z in around(t.pick(3, 4), 0.42, 0, 45):
            t.pill((0, -leg + 0.14, 0), (x * 0.8, -leg, z * 0.8), 0.07, 0.06, wood)
    else:
        t.box((0, 0, 0), (wide, 0.075, deep), coat, edge=0.035)
        splay = t.between(0, 0.08)
        for x, z in CORNERS:
            top = (x * (wide - 0.09), 0, z * (deep - 0.09))
            t.pill(top, (top[0] + x * splay, -leg, top[2] + z * splay), 0.08, 0.06, wood)
    if style == "cloth":
        t.box((0, -0.16, 0), (wide + 0.02, 0.23, deep + 0.02), coat, edge=0.05)
        trim = t.accent(coat)
        t.box((0, -0.4, 0), (wide + 0.1, 0.06, deep + 0.1), trim, role="paint")
        back = -deep - 0.02
    elif style == "desk":
        t.box((0, -0.22, 0), (wide - 0.05, 0.22, deep - 0.04), coat)
        for x in SIDES:
            t.box(
                (x * wide * 0.45, -0.2, deep - 0.04),
                (wide * 0.36, 0.12, 0.02),
                mix(coat, SNOW, 0.35),
            )
            t.ball((x * wide * 0.45, -0.2, deep), 0.04, GOLD)
        back = -deep + 0.04
    thing = t.pick("vase", "fruit", "cup", "none", "book")
    x, z = t.between(-0.3, 0.3), t.between(-0.1, 0.15)
    if thing == "vase":
        vase = t.accent(coat)
        t.pill((x, 0.13, z), (x, 0.3, z), 0.12, 0.06, vase)
        t.pill((x, 0.3, z), (x, 0.5, z), 0.025, 0.025, LEAF)
        t.ball((x, 0.55, z), (0.12, 0.1, 0.12), t.accent(coat, vase))
    elif thing == "fruit":
        t.cone((x, 0.05, z), (x, 0.15, z), 0.12, 0.24, SNOW)
        for i, (a, b, c) in enumerate(around(3, 0.1, 0.19)):
            t.ball((x + a, b, z + c), 0.1, COLOURS["red" if i else "orange"])
    elif thing == "cup":
        cup = t.accent(coat)
        t.cone((x, 0.05, z), (x, 0.24, z), 0.1, 0.12, cup)
        t.ring((x + 0.13, 0.15, z), 0.06, 0.025, cup, turn=(90, 0, 0))
    elif thing == "book":
        cover = t.accent(coat)
        t.box((x, 0.1, z), (0.2, 0.045, 0.15), cover, turn=(0, 25, 0))
        t.box((x, 0.18, z), (0.17, 0.04, 0.13), t.accent(coat, cover), turn=(0, -10, 0))
    return (0, -0.2, back), (wide * 0.92, 0.22), 0.06


def mug(t, coat):
    radius, half, flare = t.between(0.38, 0.56), t.between(0.4, 0.62), t.between(0.85, 1.15)
    low, high = radius * min(1, 2 - flare) * 0.95, radius * min(1, flare) * 1.0
    t.melt = 0.01
    t.cone((0, -half, 0), (0, half, 0), low, high, coat, role="body", edge=0.05)
    inside = t.pick(mix(CREAM, INK, 0.08), mix(coat, SNOW, 0.5))
    t.cone((0, -half + 0.12, 0), (0, half + 0.3, 0), low - 0.07, high - 0.07, inside, role="cut")
    drink = t.pick((0.36, 0.2, 0.1), (0.55, 0.33, 0.18), (0.8, 0.62, 0.3), (0.3, 0.16, 0.08))
    t.cone(
        (0, half - 0.25, 0),
        (0, half - 0.12, 0),
        min(low, high) - 0.05,
        min(low, high) - 0.05,
        drink,
    )
    side, big = t.pick(-1, 1), t.between(0.2, 0.3)
    middle, style = radius * 0.97, t.pick("round", "round", "square")
    handle = t.pick(coat, coat, mix(coat, SNOW, 0.4))
    if style == "round":
        t.ring((side * middle, 0, 0), min(big, half * 0.6), 0.075, handle, turn=(90, 0, 0))
    else:
        for y in SIDES:
            t.pill(
                (side * middle * 0.95, y * big, 0),
                (side * (middle + 0.26), y * big, 0),
                0.07,
                0.07,
                handle,
            )
        t.pill(
            (side * (middle + 0.26), -big, 0), (side * (middle + 0.26), big, 0), 0.07, 0.07, handle
        )
    mark, ink = t.pick("bands", "dots", "plain", "face", "heart"), t.pick(SNOW, t.accent(coat))
    if mark == "bands":
        for y in t.pick((0.0,), (-0.5, 0.5), (-0.55,)):
            t.box((0, y * half, 0), (2, 0.07, 2), ink, role="paint")
    elif mark == "dots":
        for i, (x, _, z) in enumerate(around(7, radius, 0)):
            t.ball((x, 0.2 - 0.4 * (i % 2), z), 0.12, ink, role="paint")
    elif mark == "face":
        t.eyes((0, 0.08, radius * 0.97), 0.16, 0.055)
        t.box((0, -0.12, radius), (0.1, 0.03, 0.1), INK, role="paint")
    elif mark == "heart":
        heart(t, (0, 0.0, radius), 0.2, 0.3, ink)
    if t.chance(0.35):
        t.ball((0.05, half - 0.1, 0.08), (0.11, 0.08, 0.11), SNOW)
        t.ball((-0.12, half - 0.1, -0.06), (0.1, 0.08, 0.1), SNOW)
    return (0, 0, -radius), (radius * 0.64, half * 0.75), radius * 0.36


def lamp(t, coat):
    wide, high = t.between(0.36, 0.5), t.between(0.22, 0.32)
    stem, base = t.between(0.55, 0.85), t.pick(coat, mix(coat, INK, 0.35), WOOD, STEEL)
    glow, t.melt = (1.0, 0.92, 0.62), 0.01
    foot = (0, -stem, 0)
    if not t.twin and t.chance(0.25):  # a desk lamp
        knee, head = (-0.3, -0.05, 0), (0.1, 0.42, 0)
        t.cone(foot, (0, 0.08 - stem, 0), 0.32, 0.3, coat, edge=0.03)
        t.pill(foot, knee, 0.05, 0.05, base)
        t.pill(knee, head, 0.05, 0.05, base)
        t.ball(knee, 0.085, coat)
        t.cone((0.42, 0.1, 0), (0.08, 0.46, 0), 0.36, 0.13, coat, role="body")
        t.cone((0.47, 0.05, 0), (0.13, 0.41, 0), 0.34, 0.1, glow, role="cut")
        t.ball((0.36, 0.17, 0), 0.13, GOLD)
        return (0, -stem, 0), (0.1, 0.1), 0.1
    top = t.pick(0.4, 0.55, 0.75, 1.0)
    t.cone((0, 0, 0), (0, 2 * high, 0), wide, wide * top, coat, role="body")
    t.cone(
        (0, -0.05, 0),
        (0, 2 * high + 0.05, 0),
        wide * 0.9,
        wide * top * 0.88,
        glow,
        role="cut",
        edge=0,
    )
    trim = t.pick(coat, mix(coat, SNOW, 0.6), t.accent(coat))
    for y in (0, 2 * high):
        t.box((0, y, 0), (1, 0.05, 1), trim, role="paint")
    if t.chance(0.3):
        for i in range(6):  # pleats
            t.box(
                (0, high, 0),
                (1, high, 0.02),
                mix(coat, SNOW, 0.35),
                role="paint",
                turn=(0, 15 + 30 * i, 0),
            )
    t.ball((0, high * 0.8, 0), 0.15, GOLD)
    shape = t.pick("pole", "gourd", "beads", "tripod", "gourd")
    if shape == "tripod":
        for x, _, z in around(3, 0.36, 0, 180):
            t.pill((0, 0.1, 0), (x, -stem, z), 0.055, 0.045, base)
    else:
        t.cone(foot, (0, high, 0), 0.055, 0.045, base)
        t.cone((0, -stem - 0.05, 0), (0, -stem + 0.05, 0), 0.3, 0.26, base, edge=0.03)
    if shape == "gourd":
        t.pill((0, -stem + 0.2, 0), (0, -0.12, 0), t.between(0.18, 0.25), 0.06, coat)
    elif shape == "beads":
        for i in range(3):
            t.ball((0, 0.12 - stem + i * 0.9 * stem / 3, 0), 0.16 - 0.025 * i, t.pick(coat, base))
    if t.chance(0.5):
        t.pill((0.2, 0.1, 0.15), (0.2, -0.14, 0.15), 0.018, 0.018, INK)
        t.ball((0.2, -0.18, 0.15), 0.05, GOLD)
    middle = wide * (1 + top) / 2
    return (0, high * 0.95, -middle), (middle * 0.62, high * 0.85), wide * (0.24 + 0.3 * (1 - top))


# Things that grow


def mushroom(t, coat):
    wide, high, flat = t.between(0.55, 0.75), t.between(0.38, 0.7), t.between(-0.08, 0.02)
    stem, thick = t.between(0.45, 0.75), t.between(0.17, 0.27)
    t.ball((0, 0, 0), (wide, high, wide), coat, role="body")
    t.box((0, flat - 1, 0), (1.2, 1, 1.2), mix(CREAM, coat, 0.2), role="cut")
    t.pill((0, -stem + 0.1, 0), (0, 0.05, 0), thick * t.between(1.0, 1.3), thick * 0.8, CREAM)
    spot, size = t.pick(CREAM, mix(CREAM, SNOW, 0.6), mix(coat, SNOW, 0.7)), t.between(0.08, 0.12)
    rings = [(0.93, 0.12, t.pick(5, 6, 7)), (0.62, 0.7, t.pick(3, 4))]
    for share, lift, count in rings:
        for x, _, z in around(count, wide * share, 0, t.between(0, 60)):
            if not (t.twin and z < -0.2):  # twins keep their back free
                y = high * math.sqrt(max(1 - share**2, 0.02)) * 0.9 + lift * 0.02
                t.ball((x, y, z), size * (1.0 if lift < 0.5 else 1.15), spot, role="paint")
    t.ball((0, high, 0), size * 1.3, spot, role="paint")
    if t.chance(0.5):
        t.eyes((0, -0.24 * stem / 0.5, thick * 0.88), thick * 0.45, 0.045)
        t.ball((0, -0.24 * stem / 0.5 - 0.09, thick), 0.04, ROSE, role="paint")
    elif t.chance(0.5):
        t.ring((0, -0.2, 0), thick, 0.05, SNOW)
    for side in t.pick((), (), (1,), (-1,)):
        x, z, k = side * wide * 0.72, 0.25, t.between(0.3, 0.42)
        t.ball((x, -stem + k, z), (wide * k, k * 0.5, wide * k), coat)
        t.pill((x, -stem + 0.05, z), (x, -stem + k, z), 0.08, 0.07, CREAM)
    t.ball((0, -stem + 0.02, 0), (0.34, 0.08, 0.34), LEAF)
    return (0, high * 0.3, -wide * 0.93), (wide * 0.55, high * 0.42), 0.22


def cactus(t, coat):
    style = t.pick("tall", "barrel") if t.twin else t.pick("tall", "tall", "tall", "barrel", "pear")
    pot = t.accent(coat, LEAF) if t.chance(0.5) else CLAY
    if math.dist(pot, coat) < 0.3:
        pot = STEEL
    t.melt = 0.08
    width, high, top, reach = _stem(t, style, coat)
    _thorns(t, style, width, high, coat)
    if t.chance(0.7):
        x = -0.28 if style == "pear" else 0
        bloom = t.accent(coat, LEAF)
        for a, _, c in around(5, 0.1):
            t.ball((x + a, top + 0.02, c), (0.09, 0.07, 0.09), bloom)
        t.ball((x, top + 0.08, 0), 0.07, GOLD)
    if t.chance(0.35) and style != "pear":
        t.eyes((0, high * 0.75, reach * 0.95), 0.12, 0.05)
        t.ball((0, high * 0.75 - 0.1, reach), 0.05, ROSE, role="paint")
    wide = max(0.34, reach * 0.95)
    t.cone((0, -0.5, 0), (0, -0.02, 0), wide * 0.75, wide * 1.0, pot, edge=0.03)
    t.cone((0, -0.1, 0), (0, 0.03, 0), wide * 1.12, wide * 1.15, pot, edge=0.03)
    t.ball((0, 0.02, 0), (wide, 0.06, wide), COCOA)
    return (0, high * 0.52, -reach), (reach * 0.66, high * 0.46), reach * 0.42


def _stem(t, style, coat):
    """A cactus without its pot: how wide and high it is, where its top is, how far its front."""
    width = t.between(0.27, 0.36)
    if style == "tall":
        high = t.between(0.75, 1.0)
        t.pill((0, 0, 0), (0, high, 0), width, width * 0.92, coat, role="body")
        for side in t.pick((-1, 1), (-1, 1), (1,), (-1,)):
            y, out, up = t.between(0.2, 0.5), width + t.between(0.2, 0.3), t.between(0.2, 0.45)
            t.pill((0, y, 0), (side * out, y, 0), 0.13, 0.13, coat, role="body")
            t.pill((side * out, y, 0), (side * out, y + up, 0), 0.13, 0.12, coat, role="body")
        return width, high, high + width * 0.9, width
    if style == "barrel":
        width = t.between(0.44, 0.55)
        high = width * t.between(0.85, 1.2)
        t.ball((0, high * 0.8, 0), (width, high, width), coat, role="body")
        return width, high, high * 1.78, width
    t.ball((0, 0.3, 0), (0.34, 0.42, 0.16), coat, role="body")
    t.ball((0.3, 0.8, 0), (0.22, 0.28, 0.12), coat, role="body", turn=(0, 0, -25))
    t.ball((-0.24, 0.85, 0), (0.24, 0.32, 0.12), coat, role="body", turn=(0, 0, 20))
    return width, 0.5, 1.12, 0.16


PEAR_THORNS = (
    (-0.15, 0.2), (0.12, 0.4), (-0.05, 0.55), (0.15, 0.1), (0.3, 0.85), (-0.25, 0.95), (-0.2, 0.75),
)  # fmt: skip


def _thorns(t, style, width, high, coat):
    """A cactus' thorns, and the ribs that they stand on."""
    thorn = mix(coat, SNOW, 0.75)
    if style == "pear":
        for x, y in PEAR_THORNS:
            t.ball((x, y, 0), (0.04, 0.04, 0.5), thorn, role="paint")
        return
    for i in range(4):  # thin planes through the axis
        turn = (0, 22.5 + 45 * i, 0)
        t.box((0, high / 2, 0), (2, 2, 0.022), mix(coat, INK, 0.28), role="paint", turn=turn)
    for i in range(3):
        y, out = high * (0.3 + 0.27 * i), width
        if style == "barrel":
            y = high * (0.45 + 0.4 * i)
            out = width * math.sqrt(max(1 - (y / high - 0.8) ** 2, 0.1))
        for x, _, z in around(8, out, y):
            t.ball((x, y, z), 0.035, thorn, role="paint")


def apple(t, coat):
    radius, dent, tall = t.between(0.4, 0.46), t.between(0.14, 0.24), t.between(0.85, 1.1)
    t.melt = 0.12
    t.ring((0, 0.05, 0), dent, radius, coat, role="body")
    t.ring((0, -0.18 * tall, 0), dent * 0.75, radius * t.between(0.75, 0.92), coat, role="body")
    lean = t.between(-0.15, 0.15)
    t.pill((0, 0.22, 0), (lean, 0.62, 0.02), 0.04, 0.055, TWIG)
    leaf = LEAF if math.dist(coat, LEAF) > 0.3 else (0.62, 0.8, 0.25)
    for side in t.pick((1,), (-1,), (-1, 1)):
        turn = (20, 0, -25 * side)
        t.ball((side * 0.22 + lean * 0.5, 0.58, 0.02), (0.2, 0.04, 0.1), leaf, turn=turn)
    extra = t.pick("shine", "bite", "worm", "face", "freckles", "shine")
    wide = radius + dent
    if extra == "shine":
        for x, y, size in ((-0.28, 0.28, 0.13), (-0.4, 0.08, 0.06)):
            t.ball(
                (x, y, wide * 0.78),
                (size * 0.8, size, 0.3),
                mix(coat, SNOW, 0.75),
                role="paint",
                turn=(0, 0, -25),
            )
    elif extra == "bite":
        side = t.pick(-1, 1)
        for y in (-0.12, 0.16):
            t.ball((side * wide * 0.98, y, 0.28), 0.2, (0.99, 0.95, 0.78), role="cut")
    elif extra == "worm":
        skin = (0.7, 0.85, 0.35) if math.dist(coat, LEAF) > 0.3 else ROSE
        t.pill((0.2, 0.0, wide * 0.8), (0.25, 0.04, wide + 0.12), 0.07, 0.07, skin)
        t.pill((0.25, 0.04, wide + 0.12), (0.27, 0.2, wide + 0.16), 0.07, 0.09, skin)
        t.eyes((0.27, 0.23, wide + 0.23), 0.04, 0.025, shine=False)
        t.ball((0.2, 0.0, wide * 0.9), 0.12, (0.3, 0.18, 0.1), role="paint")
    elif extra == "face":
        t.eyes((0, 0.08, wide * 0.96), 0.17, 0.06)
        t.box((0, -0.1, wide), (0.11, 0.03, 0.2), INK, role="paint")
        for side in SIDES:
            t.ball((side * 0.3, -0.03, wide * 0.9), 0.08, ROSE, role="paint")
    elif extra == "freckles":
        for x, _, z in around(5, wide * 0.97, 0, 12):
            for y in (0.22, -0.12):
                t.ball((x, y + 0.1 * math.cos(7 * x), z), 0.035, mix(coat, SNOW, 0.6), role="paint")
    return (0, -0.03, -wide), (wide * 0.55, wide * 0.5), 0.2


def hamburger(t, coat):
    wide, dome = t.between(0.6, 0.72), t.between(0.32, 0.5)
    lettuce = LEAF if math.dist(coat, LEAF) > 0.3 else (0.62, 0.82, 0.25)
    layers = t.pick("lpct", "pcl", "ptl", "pclpc", "lptc", "cpl")
    t.cone((0, -0.24, 0), (0, 0, 0), wide * 0.92, wide, coat, edge=0.1)
    y = 0.0
    for layer in layers:
        if layer == "p":
            t.cone((0, y - 0.02, 0), (0, y + 0.15, 0), wide * 1.02, wide * 1.02, COCOA, edge=0.07)
        elif layer == "c":
            t.box(
                (0, y + 0.015, 0),
                (wide * 0.83, 0.03, wide * 0.83),
                GOLD,
                turn=(0, t.between(20, 60), 0),
            )
        elif layer == "t":
            t.cone(
                (0, y - 0.01, 0),
                (0, y + 0.09, 0),
                wide * 0.98,
                wide * 0.98,
                (0.88, 0.2, 0.16),
                edge=0.04,
            )
        else:
            for x, _, z in around(11, wide * 0.9):
                t.ball(
                    (x, y + 0.02 * math.cos(9 * x), z),
                    (0.24, 0.05, 0.24),
                    lettuce,
                    turn=(20 * z, 0, -20 * x),
                )
        y += LAYERS[layer]
    t.melt = 0.06
    t.ball((0, y, 0), (wide * 1.03, dome + 0.06, wide * 1.03), coat, role="body")
    t.box((0, y - 1, 0), (1.2, 1, 1.2), CREAM, role="cut")
    if t.chance(0.75):
        for share, count, start in ((0.35, 4, 20), (0.7, 8, 0)):
            for x, _, z in around(count, wide * share, 0, start + t.between(0, 30)):
                height = y + (dome + 0.06) * math.sqrt(1 - (share / 1.03) ** 2)
                t.ball((x, height, z), (0.045, 0.06, 0.06), CREAM, role="paint")
    if t.chance(0.4):
        t.pill((0, y + dome, 0), (0, y + dome + 0.35, 0), 0.02, 0.02, WOOD)
        if t.chance(0.5):
            t.ball((0, y + dome + 0.3, 0), 0.09, (0.5, 0.6, 0.2))
        else:
            t.prism((0, y + dome + 0.3, 0), 0.1, 0.26, 0.02, t.accent(coat), turn=(0, 0, -90))
    return (0, y + dome * 0.34, -wide * 0.97), (wide * 0.62, dome * 0.42), 0.24


# Things that move


def rocket(t, coat):
    wide, tall = t.between(0.28, 0.38), t.between(0.62, 0.74)
    trim = t.pick(t.accent(coat), STEEL, mix(coat, INK, 0.4), mix(coat, SNOW, 0.55))
    t.melt = 0.03
    t.ball((0, 0, 0), (wide, tall, wide), coat, role="body")
    t.cone((0, -tall * 0.75, 0), (0, 0, 0), wide * 0.7, wide * 0.98, coat, role="body")
    t.box((0, tall * 0.62 + 1, 0), (2, 1, 2), trim, role="paint")
    if t.chance(0.5):
        t.box((0, -tall * 0.5, 0), (2, 0.07, 2), trim, role="paint")
    if t.chance(0.4):
        t.pill((0, tall, 0), (0, tall + 0.15, 0), 0.025, 0.02, STEEL)
        t.ball((0, tall + 0.17, 0), 0.05, ROSE)
    count, reach, start = t.pick(3, 4, 4), t.between(0.18, 0.28), t.pick(0, 45)
    start = 60 if count == 3 else start
    for i in range(count):  # swept fins
        angle = start + 360 * i / count
        x, z = (wide * 0.6 * f(math.radians(angle)) for f in (math.sin, math.cos))
        t.prism(
            (x, -tall * 0.8, z), 0.2, reach + 0.15, 0.05, trim, turn=(0, angle - 90, -90), lean=0.28
        )
    t.cone((0, -tall * 0.9, 0), (0, -tall * 0.7, 0), wide * 0.62, wide * 0.5, (0.3, 0.3, 0.34))
    if t.chance(0.7):
        t.pill((0, -tall * 0.9, 0), (0, -tall * 0.9 - 0.22, 0), wide * 0.5, 0.06, FLAME)
        t.pill((0, -tall * 0.88, 0), (0, -tall * 0.9 - 0.1, 0), wide * 0.4, 0.1, GOLD)
    for i in range(t.pick(1, 1, 2, 3)):
        y = tall * 0.25 - 0.27 * i
        z = wide * math.sqrt(1 - (y / tall) ** 2)
        t.cone((0, y, z - 0.08), (0, y, z + 0.03), 0.13, 0.12, mix(trim, SNOW, 0.4))
        t.ball((0, y, z), (0.085, 0.085, 0.06), GLASS)
    if t.chance(0.3):
        for side in SIDES:
            t.pill(
                (side * (wide + 0.12), -tall * 0.6, 0),
                (side * (wide + 0.12), -0.05, 0),
                0.11,
                0.1,
                mix(coat, SNOW, 0.3),
            )
    return (0, -tall * 0.05, -wide), (wide * 0.72, tall * 0.66), wide * 0.52


def car(t, coat):
    wide, long, low = t.between(0.4, 0.48), t.between(0.72, 0.85), t.between(0.15, 0.19)
    style = t.pick("round", "hatch", "van", "pickup", "round", "hatch")
    trim, glass = t.accent(coat), (0.30, 0.42, 0.52)
    t.melt = 0.06
    t.box((0, 0, 0), (wide, low, long), coat, role="body", edge=0.12)
    top = {"round": 0.28, "hatch": 0.24, "van": 0.36, "pickup": 0.26}[style] * t.between(0.95, 1.1)
    front, back = {
        "round": (0.35, -0.5),
        "hatch": (0.2, -0.62),
        "van": (0.58, -0.66),
        "pickup": (0.3, -0.18),
    }[style]
    middle, half = (front + back) * long / 2, (front - back) * long / 2
    if style == "round":
        t.ball((0, low * 0.9, middle), (wide * 0.92, top * 1.4, half * 1.25), coat, role="body")
    else:
        t.box((0, low + top * 0.7, middle), (wide * 0.9, top, half), coat, role="body", edge=0.1)
    peak = low + top * (1.7 if style != "round" else 1.2)
    y, high = low + top * 0.85, top * 0.42
    t.box((0, y, middle), (wide * 0.68, high, 2), glass, role="paint", edge=0.03)
    for z in (-0.5, 0.5):
        t.box((0, y, middle + z * half), (2, high, half * 0.34), glass, role="paint", edge=0.03)
    t.box((0, y, -2 - long), (2, 2, 2.02), coat, role="paint")
    for x in SIDES:
        for z in SIDES:
            at = (x * (wide - 0.02), -low, z * long * 0.6)
            out = (x * (wide + 0.09), -low, z * long * 0.6)
            t.cone(at, out, 0.22, 0.22, (0.16, 0.16, 0.18), edge=0.04)
            t.ball(out, (0.03, 0.11, 0.11), STEEL if t.twin else mix(STEEL, SNOW, 0.4))
        t.ball((x * wide * 0.66, 0.03, long * 0.97), (0.11, 0.11, 0.07), (1.0, 0.95, 0.7))
        t.ball(
            (x * wide * 0.78, 0.02, -long * 0.99),
            (0.09, 0.07, 0.04),
            COLOURS["red"] if coat != COLOURS["red"] else GOLD,
        )
    t.box((0, -0.03, long), (wide * 0.34, 0.06, 0.03), (0.22, 0.22, 0.25))
    for z in SIDES:
        t.box((0, -low * 0.85, z * long), (wide * 0.92, 0.045, 0.05), STEEL)
    extra = t.pick("stripe", "rack", "taxi", "none", "spoiler", "stripe")
    if extra == "stripe":
        t.box((0, 0, 0.5), (0.1, 2, 2), trim, role="paint") if not t.twin else None
    elif extra == "rack":
        t.box((0, peak + 0.06, middle), (wide * 0.5, 0.08, half * 0.6), trim, edge=0.03)
    elif extra == "taxi":
        t.box((0, peak + 0.03, middle), (0.16, 0.07, 0.08), GOLD)
    elif extra == "spoiler" and not t.twin:
        t.box((0, low + 0.2, -long * 0.9), (wide, 0.03, 0.1), trim)
        for x in SIDES:
            t.box((x * 0.25, low + 0.1, -long * 0.9), (0.03, 0.1, 0.05), trim)
    return (0, 0.06, -long), (wide * 0.9, low + 0.1), 0.12


def sailboat(t, coat):
    long, deep = t.between(0.55, 0.75), t.between(0.24, 0.34)
    hull = t.pick(coat, WOOD, mix(coat, INK, 0.3), coat)
    t.ball((0, 0, 0), (long, deep, 0.26), hull, role="body")
    t.box((0, 1.0, 0), (2, 1, 2), mix(WOOD, CREAM, 0.3), role="cut")
    t.box((0, -0.05, 0), (2, 0.04, 2), mix(hull, SNOW, 0.6), role="paint")
    mast, high = t.between(-0.05, 0.12), t.between(1.0, 1.3)
    t.pill((mast, -0.1, 0), (mast, high, 0), 0.035, 0.03, WOOD)
    stripe, plain = t.pick(mix(coat, SNOW, 0.5), coat, SNOW), t.pick(coat, mix(coat, SNOW, 0.35))
    style = t.pick("sloop", "sloop", "square", "cat")
    if style == "square":
        y = high * 0.55
        half = (long * 0.75, high * 0.33)
        t.box((mast, y, 0), (*half, 0.05), coat, edge=0.015)
        for shift in (-0.35, 0.35):
            t.box((mast, y + shift * high * 0.45, 0.5), (2, 0.05, 0.5), stripe, role="paint")
        x = mast
    else:
        main = t.between(0.52, 0.68)
        low, tall = 0.14, high * 0.92 - 0.14
        t.prism((mast - main / 2 - 0.03, low, 0), main / 2, tall, 0.05, coat, lean=main / 2)
        t.pill((mast, low - 0.03, 0), (mast - main, low - 0.03, 0), 0.035, 0.03, WOOD)
        if stripe != coat and not t.twin:
            t.box((0, low + tall * 0.3, 0), (2, 0.06, 1), stripe, role="paint")
        if style == "sloop":
            jib = t.between(0.3, 0.42)
            t.prism(
                (mast + jib / 2 + 0.07, low, 0), jib / 2, tall * 0.75, 0.04, plain, lean=-jib / 2
            )
        x, y, half = mast - main * 0.4, low + tall * 0.36, (main * 0.4, tall * 0.36)
    t.prism(
        (mast, high - 0.02, 0),
        0.07,
        0.22,
        0.02,
        t.accent(coat),
        turn=(0, 0, 90 if style != "sloop" else -90),
    )
    if t.chance(0.5):
        for i in (-1, 0, 1):
            t.ball((i * long * 0.4, -0.14, 0.22), (0.06, 0.06, 0.06), GLASS)
    if t.chance(0.4):
        t.box((mast + 0.05, 0.05, 0), (0.2, 0.09, 0.13), SNOW, edge=0.03)
    return (x, y, -0.06), half, 0.012


# Figures


def snowman(t, coat):
    low, mid, top = t.between(0.42, 0.5), t.between(0.3, 0.36), t.between(0.23, 0.29)
    tall = t.chance(0.65)
    t.ball((0, 0, 0), (low, low * 0.92, low), coat)
    belly = low * 0.72 + mid * 0.6 if tall else 0
    if tall:
        t.ball((0, belly, 0), mid, coat)
    else:
        mid, top = low, top * 1.15
    face = belly + mid * 0.72 + top * 0.65
    t.ball((0, face, 0), top, coat)
    t.eyes((0, face + 0.06, top * 0.92), 0.1, 0.045)
    t.cone(
        (0, face - 0.02, top * 0.9),
        (0, face - 0.04, top + 0.26),
        0.07,
        0.012,
        CARROT if coat != COLOURS["orange"] else GOLD,
    )
    for i in range(t.pick(2, 3)):
        y = belly + (0.08 - 0.17 * i) * (1 if tall else 0.9) + (0 if tall else 0.12)
        z = math.sqrt(max(mid**2 - (y - belly) ** 2, 0)) if abs(y - belly) < mid else mid
        t.ball((0, y, z), 0.05, INK)
    scarf = t.accent(coat)
    neck = face - top * 0.72
    t.ring((0, neck, 0), top * 0.72, 0.085, scarf)
    side = t.pick(-1, 1)
    t.pill(
        (side * 0.13, neck, top * 0.75), (side * 0.2, neck - 0.26, mid * 0.98), 0.07, 0.07, scarf
    )
    reach, lift = t.between(0.3, 0.4), t.between(0.05, 0.3)
    shoulder = belly + 0.05 if tall else low * 0.45
    for s in SIDES:
        hand = (s * (mid + reach), shoulder + lift, 0.05)
        t.pill((s * mid * 0.8, shoulder, 0), hand, 0.04, 0.03, TWIG)
        fork = mix((s * mid * 0.8, shoulder, 0), hand, 0.7)
        t.pill(fork, (hand[0] - s * 0.02, hand[1] + 0.14, 0.1), 0.028, 0.025, TWIG)
    hat, crown = t.pick("top", "beanie", "bucket", "top"), face + top * 0.72
    if hat == "top":
        felt = t.pick((0.2, 0.2, 0.25), scarf)
        t.cone((0, crown, 0), (0, crown + 0.06, 0), top * 1.15, top * 1.15, felt, edge=0.02)
        t.cone(
            (0, crown, 0),
            (0, crown + t.between(0.25, 0.4), 0),
            top * 0.75,
            top * 0.78,
            felt,
            edge=0.03,
        )
        t.box((0, crown + 0.1, 0), (2, 0.04, 2), scarf if felt != scarf else SNOW, role="paint")
    elif hat == "beanie":
        t.ball((0, crown - 0.06, 0), (top * 0.98, top * 0.85, top * 0.98), scarf)
        t.ball((0, crown + top * 0.8, 0), 0.1, SNOW)
    else:
        t.cone((0, crown - 0.03, 0), (0, crown + 0.28, 0), top * 0.85, top * 0.55, STEEL, edge=0.02)
    return (0, belly - 0.16, -mid), (mid * 0.64, mid * 0.95), mid * 0.4


def teddy(t, coat):
    body, head = t.between(0.38, 0.46), t.between(0.34, 0.42)
    pale = mix(coat, SNOW, t.between(0.5, 0.65))
    t.melt = 0.05
    t.ball((0, 0, 0), (body * 0.95, body * 1.08, body * 0.9), coat, role="body")
    face = body * 1.0 + head * 0.72
    t.ball((0, face, 0.02), (head * 1.05, head * 0.95, head * 0.95), coat, role="body")
    t.ball((0, -0.02, body * 0.75), (body * 0.62, body * 0.7, 0.4), pale, role="paint")
    ear = t.between(0.13, 0.19)
    for s in SIDES:
        at = (s * head * 0.78, face + head * 0.72, 0)
        t.ball(at, (ear, ear, ear * 0.6), coat, role="body")
        t.ball((at[0], at[1], ear * 0.6), (ear * 0.62, ear * 0.62, 0.06), pale)
    t.ball((0, face - head * 0.25, head * 0.85), (head * 0.48, head * 0.36, head * 0.3), pale)
    t.ball((0, face - head * 0.12, head * 1.13), (0.075, 0.055, 0.05), INK)
    t.eyes((0, face + head * 0.15, head * 0.88), head * 0.38, 0.05)
    raise_, reach = t.between(-0.4, -0.05), t.between(0.22, 0.34)
    wave = t.pick(0, 0, 1, -1)
    for s in SIDES:
        lift = 0.35 if s == wave else raise_
        paw = (s * (body + reach * 0.75), body * 0.55 + lift, 0.16)
        t.pill((s * body * 0.75, body * 0.55, 0.05), paw, 0.14, 0.13, coat, role="body")
        foot = (s * (body * 0.62 + 0.08), -body * 0.85, body * 0.75 + 0.14)
        t.pill((s * body * 0.5, -body * 0.7, 0.1), foot, 0.17, 0.17, coat, role="body")
        t.ball((foot[0], foot[1], foot[2] + 0.13), (0.11, 0.12, 0.06), pale)
    wear, cloth = t.pick("bow", "scarf", "hat", "none", "bow"), t.accent(coat)
    if wear == "bow":
        for s in SIDES:
            t.ball(
                (s * 0.13, body * 0.88, body * 0.85), (0.13, 0.09, 0.06), cloth, turn=(0, 0, 20 * s)
            )
        t.ball((0, body * 0.88, body * 0.88), 0.06, mix(cloth, INK, 0.25))
    elif wear == "scarf":
        t.ring((0, body * 0.92, 0), body * 0.66, 0.09, cloth)
        t.pill((0.16, body * 0.85, body * 0.72), (0.2, body * 0.35, body * 0.9), 0.08, 0.08, cloth)
    elif wear == "hat":
        t.cone((0, face + head * 0.75, 0), (0, face + head * 0.75 + 0.4, 0), 0.22, 0.02, cloth)
        t.ball((0, face + head * 0.75 + 0.42, 0), 0.07, SNOW)
    return (0, -0.02, -body * 0.9), (body * 0.66, body * 0.78), body * 0.45


def duck(t, coat):
    long, fat, head = t.between(0.5, 0.58), t.between(0.44, 0.5), t.between(0.28, 0.36)
    bill = CARROT if math.dist(coat, CARROT) > 0.35 else (0.85, 0.2, 0.15)
    t.melt = 0.12
    t.ball((0, 0, 0), (fat, fat * 0.82, long), coat, role="body")
    t.pill(
        (0, 0.1, -long * 0.7),
        (0, 0.3 + t.between(0, 0.12), -long - 0.1),
        0.2,
        0.05,
        coat,
        role="body",
    )
    face = (0, fat * 0.7 + head * t.between(0.6, 0.95), long * 0.42)
    t.ball(face, head, coat, role="body")
    x, y, z = face
    t.ball((0, y - 0.05, z + head * 1.05), (0.16, 0.05, 0.2), bill, turn=(-6, 0, 0))
    t.ball((0, y - 0.11, z + head * 1.0), (0.13, 0.04, 0.15), mix(bill, INK, 0.2), turn=(8, 0, 0))
    t.eyes((0, y + head * 0.28, z + head * 0.8), head * 0.46, 0.055)
    wing = t.pick(mix(coat, INK, 0.15), mix(coat, SNOW, 0.4), mix(coat, SNOW, 0.4))
    for s in SIDES:
        t.ball((s * fat * 0.93, 0.06, -0.08), (0.09, 0.2, 0.33), wing, turn=(-14, s * 8, 0))
        if (feet := t.between(0, 1)) < 0.5:
            t.ball((s * 0.2, -fat * 0.85, 0.2 + feet * 0.01), (0.14, 0.05, 0.2), bill)
    wear, cloth = t.pick("none", "hat", "bow", "scarf", "crown", "tuft"), t.accent(coat)
    top = y + head * 0.85
    if wear == "hat":
        t.cone((0, top - 0.02, z), (0, top + 0.05, z), head * 0.95, head * 0.95, cloth, edge=0.02)
        t.cone((0, top, z), (0, top + 0.26, z), head * 0.6, head * 0.58, cloth, edge=0.02)
    elif wear == "bow":
        for s in SIDES:
            t.ball((s * 0.14, top + 0.04, z), (0.14, 0.1, 0.06), cloth, turn=(0, 0, 20 * s))
        t.ball((0, top + 0.04, z), 0.06, mix(cloth, INK, 0.2))
    elif wear == "scarf":
        t.ring((0, y - head * 0.78, z - 0.02), head * 0.82, 0.08, cloth)
    elif wear == "crown":
        t.cone((0, top - 0.03, z), (0, top + 0.1, z), head * 0.5, head * 0.55, GOLD)
        for a, _, c in around(5, head * 0.5):
            t.cone((a, top + 0.05, z + c), (a * 1.15, top + 0.24, z + c * 1.15), 0.08, 0.01, GOLD)
    elif wear == "tuft":
        for lean in (-0.1, 0.0, 0.1):
            t.pill((0, top, z), (lean, top + 0.18, z - 0.06), 0.05, 0.02, coat)
    return (0, -0.12, -long * 0.98), (fat * 0.74, fat * 0.72), 0.25


def dragon(t, coat):
    body, head = t.between(0.36, 0.43), t.between(0.28, 0.34)
    trim = t.pick(t.accent(coat), mix(coat, INK, 0.4), mix(coat, SNOW, 0.45))
    pale = t.pick(mix(coat, SNOW, 0.6), CREAM, mix(trim, SNOW, 0.5))
    t.melt = 0.1
    t.ball((0, 0, 0), (body * 0.92, body * 1.15, body * 0.92), coat, role="body")
    face = body * 1.05 + head * 0.85
    t.pill((0, body * 0.6, 0), (0, face, 0.08), body * 0.6, head * 0.7, coat, role="body")
    t.ball((0, face, 0.1), (head, head * 0.9, head), coat, role="body")
    t.ball(
        (0, face - head * 0.25, 0.1 + head * 0.95),
        (head * 0.66, head * 0.45, head * 0.55),
        coat,
        role="body",
    )
    t.ball((0, -0.05, body * 0.8), (body * 0.52, body * 0.85, 0.45), pale, role="paint")
    for y in (-0.32, -0.1, 0.12):
        t.box((0, y, body), (body * 0.5, 0.018, 0.4), mix(pale, INK, 0.25), role="paint")
    horn, long = t.pick(CREAM, SNOW, trim), t.between(0.2, 0.34)
    for s in SIDES:
        t.cone(
            (s * head * 0.5, face + head * 0.65, 0),
            (s * head * 0.8, face + head * 0.65 + long, -0.08),
            0.085,
            0.015,
            horn,
        )
        t.ball((s * head * 0.28, face - head * 0.1, 0.1 + head * 1.42), 0.035, INK)
        t.ball((s * head * 0.5, face + head * 0.4, head * 0.82), 0.1, SNOW)
        t.ball((s * head * 0.5, face + head * 0.4, head * 0.82 + 0.065), 0.06, INK)
        t.pill(
            (s * body * 0.75, body * 0.45, 0.15),
            (s * body * 0.95, body * 0.15, body + 0.08),
            0.1,
            0.085,
            coat,
            role="body",
        )
        t.pill(
            (s * body * 0.75, -body * 0.85, 0.05),
            (s * body * 0.95, -body * 1.0, body * 0.95),
            0.17,
            0.13,
            coat,
            role="body",
        )
    _wings(t, body, trim)
    _tail(t, body, coat, trim)
    for i in range(t.pick(3, 4)):
        angle = math.radians(-15 + 38 * i)
        y, z = face + head * 0.85 * math.cos(angle), 0.1 - head * 0.95 * math.sin(angle)
        t.prism((0, y, z), 0.09, 0.17, 0.035, trim, turn=(0, 90, math.degrees(angle)))
    if t.chance(0.15):  # fire
        z = 0.1 + head * 1.4
        t.pill((0, face - head * 0.4, z), (0, face - head * 0.55, z + 0.24), 0.06, 0.11, FLAME)
        t.pill((0, face - head * 0.4, z), (0, face - head * 0.53, z + 0.25), 0.04, 0.075, GOLD)
    return (0, -0.02, -body * 0.92), (body * 0.71, body * 0.95), 0.19


def _wings(t, body, trim):
    """A dragon's: two webs from each shoulder."""
    spread, high, lift = t.between(0.55, 0.75), t.between(0.45, 0.65), t.between(10, 35)
    for s in SIDES:
        at = (s * body * 0.55, body * 0.45, -body * 0.6)
        t.prism(at, 0.22, spread, 0.04, trim, turn=(0, -12 * s, -s * (80 - lift)), lean=s * -0.25)
        t.prism(
            at, 0.2, spread * 0.85, 0.035, trim, turn=(0, -12 * s, -s * (115 - lift)), lean=s * 0.05
        )
        t.pill(
            at,
            (s * (body * 0.5 + spread * 0.85), body * 0.45 + high * 0.75, -body * 0.6),
            0.05,
            0.03,
            mix(trim, INK, 0.25),
        )


def _tail(t, body, coat, trim):
    """A dragon's, round one side to the front."""
    side = t.pick(-1, 1)
    tail = [(0, -body * 0.8, -body * 0.6), (side * 0.35, -body, -body * 0.85)]
    tail += [(side * 0.75, -body * 0.9, -0.15), (side * 0.82, -body * 0.55, 0.15)]
    for i in range(3):
        t.pill(tail[i], tail[i + 1], 0.2 - 0.055 * i, 0.145 - 0.045 * i, coat, role="body")
    t.prism(tail[3], 0.13, 0.24, 0.04, trim, turn=(0, 30 * side, 0))


# A place to live


def house(t, coat):
    wide, deep, high = t.between(0.42, 0.58), t.between(0.4, 0.5), t.between(0.38, 0.52)
    roof = t.pick(mix(coat, INK, 0.5), mix(coat, INK, 0.5), t.accent(coat), mix(COCOA, STEEL, 0.3))
    t.box((0, 0, 0), (wide, high, deep), coat)
    tall = t.between(0.32, 0.5)
    if t.chance(0.65):  # gable to the front
        t.prism((0, high, 0), wide, tall * 0.92, deep, coat)
        for s in SIDES:
            slope = math.degrees(math.atan2(tall, wide))
            length = math.hypot(tall, wide) / 2 + 0.1
            t.box(
                (s * wide * 0.56, high + tall * 0.45, 0),
                (length, 0.055, deep + 0.1),
                roof,
                turn=(0, 0, -s * slope),
            )
    else:
        t.prism((0, high - 0.03, 0), deep + 0.1, tall * 0.9, wide + 0.08, roof, turn=(0, 90, 0))
    side = t.pick(-1, 1)
    t.box(
        (side * wide * 0.55, high + tall * 0.6, -0.1),
        (0.09, tall * 0.5, 0.09),
        CLAY if coat != COLOURS["red"] else STEEL,
    )
    door, pane = t.accent(coat, roof), t.pick(GLASS, (1.0, 0.93, 0.6))
    x = t.pick(0, 0, -1, 1) * wide * 0.4
    t.box((x, -high + 0.2, deep), (0.13, 0.22, 0.03), mix(door, INK, 0.1))
    t.ball((x + 0.08, -high + 0.2, deep + 0.03), 0.025, GOLD)
    spots = [s for s in (-1, 1) if abs(s * wide * 0.6 - x) > 0.26] or [1]
    for s in spots:
        _window(t, (s * wide * 0.6, 0.08, deep), pane, 0)
    for s in SIDES:
        for z in t.pick((0,), (-0.4, 0.4)):
            _window(t, (s * wide, 0.06, z * deep), pane, 90)
    if t.chance(0.6):
        t.cone(
            (0, -high - 0.06, 0), (0, -high + 0.01, 0), wide + 0.24, wide + 0.24, LEAF, edge=0.03
        )
        for i in range(t.pick(1, 2, 3)):
            s = t.pick(-1, 1)
            t.ball(
                (s * (wide * 0.75), -high + 0.08, deep + 0.12 - 0.02 * i),
                t.between(0.1, 0.15),
                mix(LEAF, INK, 0.2),
            )
    return (0, 0, -deep), (wide * 0.96, high * 0.96), 0.06


def _window(t, at, pane, turn):
    t.box(at, (0.13, 0.13, 0.025), SNOW, turn=(0, turn, 0), edge=0.01)
    t.box(at, (0.095, 0.095, 0.035), pane, turn=(0, turn, 0), edge=0.01)


RECIPES = {
    "apple": apple, "cactus": cactus, "car": car, "chair": chair, "dragon": dragon, "duck": duck,
    "hamburger": hamburger, "house": house, "lamp": lamp, "mug": mug, "mushroom": mushroom,
    "rocket": rocket, "sailboat": sailboat, "snowman": snowman, "table": table, "teddy bear": teddy,
}  # fmt: skip


# What a back may carry


def heart(t, at, size, depth, colour):
    """Paint a heart of half width `size`, in the plane of the picture."""
    x, y, z = at
    for side in SIDES:
        half = (size * 0.74, size * 0.42, depth)
        t.box(
            (x + side * size * 0.33, y + size * 0.02, z),
            half,
            colour,
            "paint",
            (0, 0, 45 * side),
            size * 0.41,
        )


def disc(t, at, size, depth, colour):
    x, y, z = at
    t.cone((x, y, z - depth), (x, y, z + depth), size, size, colour, role="paint")


def add_back(t, place, colour, emblem):
    """Paint a toy's back: a field of one colour with a white emblem."""
    (x, y, z), (wide, high), depth = place
    half = min(wide, high)
    t.box((x, y, z), (wide, high, depth), colour, role="paint", edge=0.5 * half)
    if emblem == "target":
        disc(t, (x, y, z), half * 0.8, depth, SNOW)
        disc(t, (x, y, z), half * 0.45, depth, colour)
    elif emblem == "heart":
        heart(t, (x, y, z), half * 0.75, depth, SNOW)
    elif emblem == "bars":
        for side in SIDES:
            t.box((x, y + side * high * 0.45, z), (wide, half * 0.18, depth), SNOW, role="paint")
    elif emblem == "cross":
        for arms in ((half * 0.22, half * 0.75), (half * 0.75, half * 0.22)):
            t.box((x, y, z), (*arms, depth), SNOW, role="paint")


EMBLEMS = ("target", "heart", "bars", "cross")
