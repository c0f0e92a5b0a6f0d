"""What is different between two routing files, in words."""

from __future__ import annotations

from poe_gateway.routing.changes import changes
from poe_gateway.routing.table import Table
from tests.unit.routes import LADDER, table


def test_nothing_changes() -> None:
    assert changes(table(), table("# only a comment")) == ()


def test_every_section_is_told() -> None:
    old = table(
        """
[gateway]
health_window = 10
[profiles.default]
classifier = "local:fast"
system_prompt = "One."
[profiles.gone]
mode = "reply"
[[clients]]
name = "ha"
key_env = "HA_KEY"
profile = "default"
[fallbacks]
x = ["local:fast"]
"""
    )
    new = table(
        """
[gateway]
health_window = 20
[backends.extra]
provider = "mock"
[[tiers]]
name = "extra:one"
backend = "extra"
model = "mock-1"
[profiles.default]
mode = "escalate"
classifier = "local:fast"
system_prompt = "A very long prompt, longer than what one line of a difference should show to anybody."
[[clients]]
name = "ha"
key_env = "HA_KEY"
profile = "default"
profiles = ["*"]
[fallbacks]
x = ["local:fast", "smart"]
""",
        base=LADDER.replace('"hint:fast" = "local:fast"', '"hint:fast" = "cloud:economy"').replace('"Medium"', '"New"'),
    )
    assert changes(old, new) == (
        "~ gateway.health_window: 10 -> 20",
        "+ backends.extra: provider mock",
        '~ tiers."cloud:standard".model: Medium -> New',
        '+ tiers."extra:one": backend extra, model mock-1',
        '~ aliases."hint:cheap": local:fast -> cloud:economy',
        '~ aliases."hint:fast": local:fast -> cloud:economy',
        "~ profiles.default.mode: dispatch -> escalate",
        "~ profiles.default.system_prompt: One. -> a text of 85 characters",
        "- profiles.gone: mode reply",
        "~ clients.ha.profiles: - -> *",
        "~ fallbacks.x: local:fast -> local:fast, smart",
    )


def test_another_order_of_tiers_is_a_change() -> None:
    first, second = LADDER.split("[[tiers]]")[1:3]
    swapped = LADDER.replace(first, "?").replace(second, first).replace("?", second)
    assert changes(table(), table(base=swapped)) == (
        "~ tiers: local:fast < cloud:economy < cloud:standard < cloud:expert"
        " -> cloud:economy < local:fast < cloud:standard < cloud:expert",
    )


def test_inside_of_lists_and_tables_it_is_told_as_well() -> None:
    rule = '{ when = { class = "a" }, route_to = "local:fast" }'
    other = '{ when = { class = "b" }, route_to = "cloud:expert" }'

    def of(options: str, prompt: str, rules: str) -> Table:
        profile = f"""
[profiles.p]
mode = "classify"
classifier = "local:fast"
classifier_prompt = "{prompt}"
class_prompts = {{ x = "{prompt}" }}
rules = [{rules}]
"""
        return table(profile, base=LADDER.replace("{ temperature = 0.2 }", options))

    old, new = of("{ temperature = 0 }", "a" * 80, rule), of("{ seed = 1 }", "b" * 80, f"{other}, {rule}")
    assert changes(old, new) == (
        "+ backends.far.default_options.seed: 1",
        "- backends.far.default_options.temperature: 0",
        "~ profiles.p.classifier_prompt: a text of 80 characters -> another one",
        "~ profiles.p.class_prompts.x: a text of 80 characters -> another one",
        "~ profiles.p.rules[0].when.class: a -> b",
        "~ profiles.p.rules[0].route_to: local:fast -> cloud:expert",
        "+ profiles.p.rules[1]: route_to local:fast",
    )
    assert changes(new, old)[-1] == "- profiles.p.rules[1]: route_to local:fast"
