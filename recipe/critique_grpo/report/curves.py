"""Curves of one run or of several laid over each other, as interactive plots with the values in a table below."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from recipe.critique_grpo.report.metrics import STAGES, Metrics

OWN = "critique_grpo/"
#: (title, what is on the axis, label -> metric). A metric that ends in * stands for all that begin so.
PANELS: list[tuple[str, str, dict[str, str]]] = [
    ("Accuracy", "fraction", {"validation": "val-core/*", "initial responses": OWN + "initial_accuracy"}),
    ("Reward of the mixed groups", "mean score", {"reward": "critic/score/mean"}),
    (
        "Refinements and triggers",
        "fraction",
        {
            "refinements correct": OWN + "refinement_success",
            "selected refinements correct": OWN + "selected_success",
            "groups refined": OWN + "trigger_rate",
            "rows without advantage": OWN + "zero_advantage_fraction",
        },
    ),
    ("Entropy", "nats a token", {"initial rows": OWN + "entropy_initial", "refined rows": OWN + "entropy_refined"}),
    (
        "Can refinements be learned from",
        "fraction",
        {
            "mean f(p), or ratio": OWN + "shaping_ratio_mean",
            "median p of their tokens": OWN + "refinement_prob_q50",
            "10% quantile of p": OWN + "refinement_prob_q10",
            "median gradient weight f(1-f)": OWN + "shaping_gradient_q50",
            "share of the pull on the policy": OWN + "refined_pull_share",
        },
    ),
    (
        "Lengths",
        "tokens",
        {"rows": "response_length/mean", "selected refinements": OWN + "selected_tokens_mean"},
    ),
    ("Seconds by stage", "seconds", dict(STAGES)),
    (
        "Tokens generated",
        "tokens a step",
        {"samples": OWN + "tokens/sample", "refinements": OWN + "tokens/refine", "critiques": OWN + "tokens/critique"},
    ),
]


@dataclass(frozen=True)
class Curve:
    """One line; ``low`` and ``high`` are a band around it, such as an interval over seeds.

    ``colour``: a number, for what has the same colour in several plots; None takes the next one.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    colour: int | None = None


def panels(runs: Mapping[str, Mapping[int, Metrics]]) -> str:
    """HTML of all panels that have a value in any of the runs (name -> metrics by step)."""
    blocks = []
    for title, unit, metrics in PANELS:
        found = [
            curve for name, steps in runs.items() for curve in _curves(name if len(runs) > 1 else "", steps, metrics)
        ]
        if found:
            blocks.append(panel(title, "step", unit, found))
    return f'<div class="curves">{"".join(blocks)}</div>'


def _curves(run: str, steps: Mapping[int, Metrics], metrics: Mapping[str, str]) -> Iterator[Curve]:
    for label, metric in metrics.items():
        names = [metric]
        if metric.endswith("*"):
            names = sorted({name for values in steps.values() for name in values if name.startswith(metric[:-1])})
        for name in names:
            points = [(step, values[name]) for step, values in steps.items() if name in values]
            if points:
                which = label if name == metric else f"{label}, {name[len(metric) - 1 :]}"
                x, y = zip(*points, strict=True)
                yield Curve(f"{run}: {which}" if run else which, x, y)


def panel(title: str, x_title: str, y_title: str, curves: Sequence[Curve]) -> str:
    """HTML of one plot and its table of values."""
    picture = figure(title, x_title, y_title, curves).to_html(
        full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True}
    )
    return f"<figure>{picture}{_values(title, x_title, curves)}</figure>"


def figure(title: str, x_title: str, y_title: str, curves: Sequence[Curve]) -> Any:
    """A plotly figure."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative

    drawn = go.Figure()
    for place, curve in enumerate(curves):
        number = place if curve.colour is None else curve.colour
        colour = qualitative.D3[number % len(qualitative.D3)]
        if curve.low is not None and curve.high is not None:
            outline = {
                "x": [*curve.x, *reversed(curve.x)],
                "y": [*curve.high, *reversed(curve.low)],
                "fill": "toself",
                "mode": "lines",
                "line": {"width": 0},
                "opacity": 0.2,
                "fillcolor": colour,
            }
            drawn.add_scatter(**outline, hoverinfo="skip", showlegend=False, legendgroup=curve.name)
        mode = "lines" if len(curve.x) > 60 else "lines+markers"
        line = {"color": colour, "dash": ("solid", "dash", "dot")[number // len(qualitative.D3) % 3]}
        drawn.add_scatter(
            x=list(curve.x), y=list(curve.y), name=escape(curve.name), mode=mode, line=line, legendgroup=curve.name
        )
    drawn.update_layout(
        title=title,
        xaxis_title=x_title,
        yaxis_title=y_title,
        template="plotly_white",
        margin={"l": 50, "r": 10, "t": 40, "b": 40},
        height=340,
        showlegend=True,
        legend={"orientation": "h", "y": -0.25},
        hovermode="x unified",
    )
    return drawn


def _values(title: str, x_title: str, curves: Sequence[Curve]) -> str:
    places = sorted({x for curve in curves for x in curve.x})
    values = [dict(zip(curve.x, curve.y, strict=True)) for curve in curves]
    head = "".join(f"<th>{escape(name)}</th>" for name in [x_title, *(curve.name for curve in curves)])
    rows = "".join(
        f"<tr><td class=number>{x:g}</td>"
        + "".join(f"<td class=number>{one[x]:.4g}</td>" if x in one else "<td></td>" for one in values)
        + "</tr>"
        for x in places
    )
    return (
        f"<details><summary>{escape(title)}: the values</summary><div class=scroll>"
        f"<table><tr>{head}</tr>{rows}</table></div></details>"
    )
