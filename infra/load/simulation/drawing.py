"""The picture: the attacker's share of the units, a bar for each scenario, and the share of shoppers who were wrongly refused."""

from report import BLUE, FAINT, GREY, INK, ORANGE, line, text

from .tables import percent, share_refused

WIDTH, LEFT, RIGHT, TOP, STEP, BAR = 960, 280, 210, 60, 26, 16
COLORS = {"first come": ORANGE, "draw": BLUE}
TITLE = "Share of the units that the attacker gets"


def place(share):
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def label(result):
    if result["defences"] == "none":
        return f"{result['allocation']} alone"
    return f"{result['allocation']}: {result['defences']}"


def bar(y, result):
    his, units = result["attacker"]["units"], result["units"]
    width = max(place(his / units) - LEFT, 1)
    return [
        text(LEFT - 10, y + 13, label(result), anchor="end"),
        f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{COLORS[result["allocation"]]}"/>',
        text(LEFT + width + 8, y + 13, percent(his, units)),
        text(WIDTH - 20, y + 13, share_refused(result["honest"]), anchor="end"),
    ]


def picture(results):
    # A space between the sales by first come and by draw.
    gaps = [sum(a["allocation"] != b["allocation"] for a, b in zip(results, results[1 : n + 1])) for n in range(len(results))]
    bottom = TOP + STEP * len(results) + (gaps[-1] * STEP // 2 if gaps else 0)
    parts = [text(LEFT, 26, TITLE, INK, size=16), text(WIDTH - 20, 44, "shoppers wrongly refused", GREY, "end", 12)]
    for tenth in range(0, 11, 2):
        x = place(tenth / 10)
        parts += [line(x, TOP - 10, x, bottom, FAINT), text(x, bottom + 18, f"{tenth * 10} %", GREY, "middle", 12)]
    for number, result in enumerate(results):
        parts += bar(TOP + STEP * number + gaps[number] * STEP // 2, result)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 34}" width="{WIDTH}" height="{bottom + 34}" '
        f'font-family="system-ui,sans-serif" role="img"><title>{TITLE}</title><rect width="100%" height="100%" fill="#fff"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )
