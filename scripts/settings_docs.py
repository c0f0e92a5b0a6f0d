"""Write what the documents say about settings from the table in ``poe_gateway.settings``.

Usage: python scripts/settings_docs.py
Rewrites .env.gateway.example and the part of README.md between the two markers; a test keeps them equal.
"""

from __future__ import annotations

from pathlib import Path

from poe_gateway.settings import VARIABLES, Variable

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
HEAD = """\
# Template of .env.gateway: copy it, put your own values in, keep the copy to yourself (chmod 600).
# The process environment wins over this file. GATEWAY_CONFIG_FILE in the environment names another file.
# Lines that begin with "#NAME=" show the default, or an example where there is no default.
"""


def example() -> str:
    """The text of .env.gateway.example."""
    lines = [HEAD]
    section = ""
    for variable in VARIABLES:
        if variable.section != section:
            section = variable.section
            lines.append(f"\n# --- {section} ---\n")
        lines.append(f"\n# {variable.meaning.replace('`', '')}\n")
        value = variable.sample if variable.sample is not None else variable.default
        # Keys are for everybody to fill in; the rest is fine as it is.
        mark = "" if variable.required or variable.name == "SERVICE_API_KEYS_BOOTSTRAP" else "#"
        lines.append(f"{mark}{variable.name}={value}\n")
    return "".join(lines)


def table() -> str:
    """The rows of the README, one table a section."""
    lines: list[str] = []
    section = ""
    for variable in VARIABLES:
        if variable.section != section:
            section = variable.section
            lines += ["", f"**{section}**", "", "| Variable | Default | Meaning |", "|---|---|---|"]
        lines.append(f"| `{variable.name}` | {_default(variable)} | {variable.meaning} |")
    return "\n".join(lines).lstrip("\n")


def readme(text: str) -> str:
    """The README with its table renewed."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


def _default(variable: Variable) -> str:
    if variable.required:
        return "required"
    return f"`{variable.default}`" if variable.default else "none"


def main() -> None:
    (ROOT / ".env.gateway.example").write_text(example(), encoding="utf-8")
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
