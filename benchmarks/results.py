"""Write the tables of docs/results.md from docs/results/<name>.json, each between two comments in the page.

python benchmarks/results.py

Each file was written by ``python src/report.py STUDY --json docs/results/<name>.json`` once its search had come to its
end, with its finals and its test, or the ablation had.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from iolaus import variants
from iolaus.compare import in_words, mean_in_words
from iolaus.config import project_root

PAGE = project_root() / "docs" / "results.md"
FAMILIES = {"best_cnn": "CNN", "best_mlp": "MLP, images as they are", "tiny_cnn": "CNN of at most 10,000 parameters"}
"""Names of files, and of the networks."""
ABLATION = "udacity"
IMPORTANT = 3
"""How many importances are named."""

Figures = Mapping[str, Any]


def families(kept: Mapping[str, Figures]) -> Iterator[str]:
    """What each family's winner comes to on test."""
    yield "| | test accuracy | parameters | epochs | seconds of training | once more |"
    yield "|---|---|---|---|---|---|"
    for name, title in FAMILIES.items():
        if name in kept:
            test = kept[name]["test"]
            accuracy, params = mean_in_words(test, "test/accuracy"), f"{test['params']:,.0f}"
            epochs = re.findall(r"\bepochs=(\d+)", kept[name]["environment"]["overrides"])[-1]
            yield f"| {title} | {accuracy} | {params} | {epochs} | {test['fit_s']:.0f} | `experiment={name}` |"


def published(kept: Mapping[str, Figures]) -> Iterator[str]:
    """Each winner below what others have published, in docs/published.csv."""
    with open(PAGE.parent / "published.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, title in FAMILIES.items():
        yield f"| {title} | test accuracy | parameters | the figure is |"
        yield "|---|---|---|---|"
        for row in rows:
            if row["family"] == name:
                what = f"[{row['what']}]({row['source']})"
                yield f"| {what} | {row['accuracy']} | {row['parameters']} | {row['figure']} |"
        if name in kept:
            test = kept[name]["test"]
            how = f"mean over {test['n']} seeds with its interval; nothing chosen on test"
            yield f"| **ours** | **{mean_in_words(test, 'test/accuracy')}** | {test['params']:,.0f} | {how} |"
        yield ""


def searches(kept: Mapping[str, Figures]) -> Iterator[str]:
    """What each search cost, and how far its best value flattered itself."""
    yield "| | trials | of them pruned | minutes: search, finals, test | its best on val | the same with new seeds |"
    yield "|---|---|---|---|---|---|"
    for name, title in FAMILIES.items():
        if name in kept:
            parts = kept[name]["parts"]
            trials = parts["search"]["trials"]
            first = kept[name]["finals"]["finalists"][0]
            minutes = ", ".join(f"{parts[part]['busy_s'] / 60:.0f}" for part in ("search", "finals", "test"))
            counts = f"{sum(trials.values())} | {trials.get('pruned', 0)}"
            best = in_words(first["best"], "val/accuracy")
            yield f"| {title} | {counts} | {minutes} | {best} | {mean_in_words(first, 'val/accuracy')} |"


def importances(kept: Mapping[str, Figures]) -> Iterator[str]:
    """What mattered most in each search."""
    yield "| | what tells the best trials from all complete ones: share, and its 95 % interval | of so many |"
    yield "|---|---|---|"
    for name, title in FAMILIES.items():
        if name in kept:
            found = kept[name]["search"]["importances"]
            most = sorted(found["percent"].items(), key=lambda item: -item[1][0])[:IMPORTANT]
            words = [f"`{key}` {share:.0f} % ({low:.0f} to {high:.0f})" for key, (share, low, high) in most]
            words += [] if found["clear"] else ["too few trials to say which matters most"]
            yield f"| {title} | {found['problem'] or ', '.join(words)} | {found['of']} |"


def commands(kept: Mapping[str, Figures]) -> Iterator[str]:
    """The command behind each file, with what it ran on."""
    for name, figures in kept.items():
        tags = figures["environment"]
        on = f"{figures['cores']} cores, {tags['resolved.precision']}, torch {tags['version.torch']}"
        changed = ", with changes" if tags["git_dirty"] == "true" else ""
        commit = f"commit {tags['mlflow.source.git.commit'][:7]}{changed}"
        yield f"- [{name}.json](results/{name}.json): `{figures['command']}` ({on}, {commit})"


def components(kept: Mapping[str, Figures]) -> Iterator[str]:
    """What each component of the network is worth on val, and what it costs."""
    if ABLATION in kept:
        head, *rows = variants.table(kept[ABLATION]["comparison"])
        yield from (f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


TABLES = (families, published, searches, importances, commands, components)


def page(text: str, kept: Mapping[str, Figures]) -> str:
    """The page with new tables in it.

    Raises:
        ValueError: if a table has no place in it.
    """
    for table in TABLES:
        name = table.__name__
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise ValueError(f"{PAGE} must have a line <!-- {name} --> and below it <!-- end of {name} -->")
        text = "".join([before, begin, "\n".join(table(kept)), end, after])
    return text


def kept_figures() -> dict[str, Figures]:
    """What is kept, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((PAGE.parent / "results").glob("*.json"))}


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), kept_figures()))
