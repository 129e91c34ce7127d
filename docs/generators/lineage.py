"""Draws docs/lineage.svg: the models by layer and folder, left to right, and which folder reads which."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from docs.generators.docs import parse
from include.settings import PROJECT_DIR

PICTURE = PROJECT_DIR / "docs" / "lineage.svg"
COLUMNS = ("raw and policy", "staging", "intermediate", "marts", "published", "used by")
COLORS = ("#b45309", "#0f766e", "#1d4ed8", "#6d28d9", "#15803d", "#374151")
WIDTH, MARGIN, GAP, TOP = 1180, 14, 38, 74
LINE, HEAD, SPACE = 15, 24, 14
"""Heights of a model's line, of a box's heading, and between boxes; all in pixels, as is the rest."""
BOX = (WIDTH - 2 * MARGIN - GAP * (len(COLUMNS) - 1)) / len(COLUMNS)
PREFIXES = ("stg_", "int_", "published_")
STYLE = """
    text { fill: #111827; font-size: 11.5px }
    .layer { font-size: 15px; font-weight: 700 }
    .folder { font-size: 12.5px; font-weight: 700 }
    .note { fill: #4b5563; font-size: 12px }
    .way { fill: none; stroke-opacity: 0.38 }
"""


@dataclass(frozen=True)
class Folder:
    """A box of the picture: its column (place in COLUMNS), its name, and what stands in it."""

    column: int
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Box:
    """Where a folder is drawn, in pixels."""

    x: float
    y: float
    height: float


Place = tuple[int, str]
Way = tuple[Place, Place]
Ways = Counter[Way]


def generated(manifest: Any) -> str:
    """Return the picture of a parsed project."""
    folder_of = _folders(manifest)
    names: dict[Place, set[str]] = defaultdict(set)
    for unique_id, (column, folder) in folder_of.items():
        names[column, folder].add(_short(unique_id.rpartition(".")[2], folder if column == 1 else ""))
    folders = {
        place: Folder(*place, (f"{len(named)} tables",) if place[0] == 0 else tuple(sorted(named)))
        for place, named in sorted(names.items())
    }
    ways: Ways = Counter()
    for unique_id, parents in manifest.parent_map.items():
        for parent in parents:
            if unique_id in folder_of and parent in folder_of and folder_of[unique_id] != folder_of[parent]:
                ways[folder_of[parent], folder_of[unique_id]] += 1
    return _svg(folders, ways)


def _folders(manifest: Any) -> dict[str, Place]:
    """Return column and folder of each source, seed, model and exposure, by its unique id."""
    manifest.build_parent_and_child_maps()
    placed: dict[str, Place] = {}
    for unique_id, source in manifest.sources.items():
        placed[unique_id] = (0, source.source_name)
    for unique_id, node in manifest.nodes.items():
        path = Path(node.original_file_path).parts
        if node.resource_type == "seed":
            placed[unique_id] = (0, "policy seeds")
        elif node.resource_type == "model":
            column = COLUMNS.index(path[1])
            placed[unique_id] = (column, path[2] if len(path) > 3 else path[1])
    for unique_id in manifest.exposures:
        placed[unique_id] = (len(COLUMNS) - 1, "exposures")
    return placed


def _short(name: str, folder: str) -> str:
    """Return a name without its layer's prefix and the folder's (staging repeats the system's name)."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name.removeprefix(f"{folder}_")


def _svg(folders: dict[Place, Folder], ways: Ways) -> str:
    boxes = _boxes(folders, ways)
    height = max(box.y + box.height for box in boxes.values()) + SPACE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        'aria-labelledby="title desc" font-family="system-ui, \'DejaVu Sans\', sans-serif">',
        '  <title id="title">Which models stand where, and which folder reads which</title>',
        '  <desc id="desc">Raw tables and policy on the left, then staging, intermediate, marts and published '
        "tables, and on the right who uses them. A line leads from a folder to one whose models read it; the "
        "more models do, the thicker it is.</desc>",
        f"  <style>{STYLE}  </style>",
        f'  <rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
        f'  <text class="note" x="{MARGIN}" y="22">A line leads from a folder to one that reads it, in the color of '
        "what is read; the more models read, the thicker. Prefixes (stg_, int_, published_) are left out.</text>",
    ]
    for column, layer in enumerate(COLUMNS):
        x = MARGIN + column * (BOX + GAP)
        parts.append(f'  <text class="layer" x="{x:.0f}" y="58" fill="{COLORS[column]}">{layer}</text>')
    leaving = _ports(boxes, ways, 0)
    arriving = _ports(boxes, ways, 1)
    for way, count in sorted(ways.items()):
        parts.append(_way(boxes[way[0]].x + BOX, leaving[way], boxes[way[1]].x, arriving[way], way, count))
    parts += [_drawn(folder, boxes[place]) for place, folder in folders.items()]
    return "\n".join([*parts, "</svg>", ""])


def _boxes(folders: dict[Place, Folder], ways: Ways) -> dict[Place, Box]:
    """Return where each folder stands: in its column, what others of the column read above what reads them."""

    def read_here(place: Place) -> int:
        return sum((place == start) - (place == end) for start, end in ways if start[0] == end[0] == place[0])

    boxes: dict[Place, Box] = {}
    bottoms = [float(TOP)] * len(COLUMNS)
    for place, folder in sorted(
        folders.items(), key=lambda item: (item[0][0], -read_here(item[0]), item[0][1])
    ):
        height = HEAD + LINE * len(folder.lines) + 6
        boxes[place] = Box(MARGIN + folder.column * (BOX + GAP), bottoms[folder.column], height)
        bottoms[folder.column] += height + SPACE
    return boxes


def _ports(boxes: dict[Place, Box], ways: Ways, side: int) -> dict[Way, float]:
    """Return at which height each line leaves its box (side 0) or arrives (1): spread, in the order of the other ends."""
    by_box: dict[Place, list[Way]] = defaultdict(list)
    for way in ways:
        by_box[way[side]].append(way)
    return {
        way: boxes[place].y + boxes[place].height * (number + 1) / (len(there) + 1)
        for place, there in by_box.items()
        for number, way in enumerate(sorted(there, key=lambda way: (boxes[way[1 - side]].y, way)))
    }


def _drawn(folder: Folder, box: Box) -> str:
    color = COLORS[folder.column]
    texts = [
        f'    <text x="{box.x + 8:.0f}" y="{box.y + HEAD + 10 + LINE * place:.0f}">{escape(line)}</text>'
        for place, line in enumerate(folder.lines)
    ]
    return "\n".join(
        [
            "  <g>",
            f'    <rect x="{box.x:.0f}" y="{box.y:.0f}" width="{BOX:.0f}" height="{box.height:.0f}" rx="5" '
            f'fill="#ffffff" stroke="{color}" stroke-width="1.4"/>',
            f'    <text class="folder" x="{box.x + 8:.0f}" y="{box.y + 17:.0f}" fill="{color}">{escape(folder.name)}</text>',
            *texts,
            "  </g>",
        ]
    )


def _way(x1: float, y1: float, x2: float, y2: float, way: Way, count: int) -> str:
    """Return the line from one box to another; within a column it goes round on the right."""
    if way[0][0] == way[1][0]:
        x2 += BOX
        first = second = x1 + GAP * 0.8
    else:
        bend = max(GAP * 0.7, (x2 - x1) / 2)
        first, second = x1 + bend, x2 - bend
    return (
        f'  <path class="way" d="M{x1:.0f} {y1:.0f} C{first:.0f} {y1:.0f} {second:.0f} {y2:.0f} {x2:.0f} {y2:.0f}" '
        f'stroke="{COLORS[way[0][0]]}" stroke-width="{min(6.0, 1.0 + count**0.5 * 0.6):.1f}"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(generated(parse()), encoding="utf-8")
