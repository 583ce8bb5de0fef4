"""A table as Markdown and as LaTeX."""

from __future__ import annotations

from itertools import groupby

from toppo_diag.analysis.tables import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "✓": r"\checkmark{}",
    "\N{GREEK SMALL LETTER ALPHA}": r"$\alpha$",
    "\N{EN DASH}": "--",
    "§": r"\S{}",
    "[": "{[}",  # at the start of a row it would be read as an option of \\
}


def to_markdown(table: Table) -> str:
    """A table as Markdown: a heading, the rows with ours in bold, and the notes."""
    spans = [f"{span}: " if span else "" for span in table.spans]
    lines = [
        [f"{span}{name}" for span, name in zip(spans, table.header, strict=True)],
        ["---", *["---" if table.is_text else "---:"] * (len(table.header) - 1)],
        *([f"**{row.cells[0]}**" if row.ours else row.cells[0], *row.cells[1:]] for row in table.rows),
    ]
    text = f"## Table {table.number}. {table.title}\n\n"
    text += "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
    return text + "\n" + "".join(f"- {note}\n" for note in table.notes)


def to_latex(table: Table) -> str:
    r"""A table as LaTeX for \input. Our rows stand in bold under a rule, and the notes below the table.

    Needs the packages booktabs and amssymb.
    """
    lines = [
        "% needs \\usepackage{booktabs,amssymb}",
        r"\begin{table}",
        r"\centering\footnotesize",
        f"\\caption{{{latex(table.title)} (Table {table.number} of the TOPPO paper, with ours).}}",
        f"\\begin{{tabular}}{{l{('l' if table.is_text else 'r') * (len(table.header) - 1)}}}",
        r"\toprule",
    ]
    if any(table.spans):
        spans = [(span, len(list(same))) for span, same in groupby(table.spans)]
        lines.append(
            _row([f"\\multicolumn{{{n}}}{{c}}{{{latex(span)}}}" if n > 1 or span else "" for span, n in spans])
        )
    lines += [_row([latex(name) for name in table.header]), r"\midrule"]
    ours_yet = False
    for row in table.rows:
        if row.ours and not ours_yet:
            lines.append(r"\midrule")
            ours_yet = True
        cells = [latex(cell) for cell in row.cells]
        lines.append(_row([f"\\textbf{{{cells[0]}}}", *cells[1:]] if row.ours else cells))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"\\par {latex(note)}." for note in table.notes]
    return "\n".join([*lines, r"\end{table}", ""])


def latex(text: str) -> str:
    """Text in which the special characters of LaTeX are escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
