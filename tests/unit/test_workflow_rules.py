"""What the rules make of an event, and what is said of rules that cannot be used."""

from __future__ import annotations

import orjson
import pytest

from bridge.contract.events import EVENT_MODELS
from bridge.errors import ConfigError, PermanentError
from consumers.testing import an_event
from consumers.workflow.options import SHIPPED_RULES
from consumers.workflow.rules import Action, Rules, parse_rules, payload, request_id

SHIPPED = SHIPPED_RULES.read_text()
ONE = """\
task_queue = "desk"

[[rule]]
types = ["renewal.requested"]
do = "signal_or_start"
workflow = "Renewal"
signal = "asked"
id = "renewal:{request_id}"
"""


def rules(text: str = SHIPPED) -> Rules:
    return parse_rules(text, file="rules.toml")


def test_the_rules_shipped_start_and_signal_what_the_page_says() -> None:
    found = {event_type: rules().action(an_event(event_type, key="rx_1", id="e1")) for event_type in EVENT_MODELS}
    told = {each: None if it is None else (it.do, it.workflow, it.signal, it.id) for each, it in found.items()}

    assert told == {
        **dict.fromkeys(EVENT_MODELS),
        "renewal.requested": ("signal_or_start", "Renewal", "asked", "renewal:drx:request_id"),
        "renewal.responded": ("signal_or_start", "Renewal", "answered", "renewal:drx:request_id"),
        "renewal.closed": ("signal_or_start", "Renewal", "closed", "renewal:drx:request_id"),
        "change.requested": ("signal_or_start", "Change", "asked", "change:drx:request_id"),
        "change.responded": ("signal_or_start", "Change", "answered", "change:drx:request_id"),
        "cancel.requested": ("signal_or_start", "Cancel", "asked", "cancel:drx:request_id"),
        "cancel.responded": ("signal_or_start", "Cancel", "answered", "cancel:drx:request_id"),
        "prescription.transmission_failed": ("start", "Repair", "", "repair:drx:rx_1:e1"),
        "epcs.signing_failed": ("start", "Repair", "", "repair:drx:rx_1:e1"),
        "alert.raised": ("start", "Alert", "", "alert:drx:alert_id"),
    }
    assert {action.task_queue for action in found.values() if action} == {"drx"}


def test_the_first_rule_that_fits_counts() -> None:
    first = ONE.replace('id = "', 'when = "data.urgent"\nid = "urgent:')
    found = rules(first + ONE.partition("\n")[2])
    event = an_event("renewal.requested", request_id="r1")

    assert found.action(event) == Action("signal_or_start", "renewal:r1", "Renewal", "desk", "asked")
    assert found.action(an_event("renewal.closed")) is None


def test_an_update_of_an_unknown_type_does_something_where_a_rule_names_its_word() -> None:
    text = ONE.replace("{request_id}", "{key}").replace("renewal.requested", "other.reported")
    found = rules(text.replace('id = "', 'when = "reported_type == \'prescription.expired\'"\nid = "'))

    assert found.action(an_event("other.reported", reported_type="prescription.expired")) is not None
    assert found.action(an_event("other.reported", reported_type="prescription.stored")) is None
    assert rules().action(an_event("other.reported", reported_type="prescription.expired")) is None


def test_an_id_is_made_of_the_first_that_the_event_has() -> None:
    text = ONE.replace("{request_id}", "{message_id|event_id}")
    with_one, without = an_event("renewal.requested", message_id="m1"), an_event("renewal.requested", id="e1")

    found = [rules(text).action(each) for each in (with_one, without)]
    assert [each and each.id for each in found] == ["renewal:m1", "renewal:e1"]


def test_an_id_that_the_event_lacks_parks_it() -> None:
    with pytest.raises(PermanentError, match=r"^no_id$"):
        rules(ONE.replace("{request_id}", "{message_id}")).action(an_event("renewal.requested"))


def test_a_condition_without_a_result_parks_and_shows_no_value() -> None:
    text = ONE.replace("id =", 'when = "length(data.urgent) > `1`"\nid =')
    with pytest.raises(PermanentError, match=r"^when_failed$"):
        rules(text).action(an_event("renewal.requested"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["renewal.requested"]', '["renewal.asked"]', "rule 1 types: no event type is 'renewal.asked'"),
        ('["renewal.requested"]', '[\n  "renewal.*",\n  "nil"\n]', "rule 1 types: no event type is 'nil'"),
        ("{request_id}", "{patient}", "rule 1 id: has no {patient}"),
        ("{request_id}", "{request_id", "rule 1 id: has a brace without the other"),
        ("{request_id}", "{alert_id}", "rule 1: renewal.requested has no alert_id"),
        ('signal = "asked"\n', "", "rule 1: signal_or_start needs signal"),
        ('workflow = "Renewal"\n', "", "rule 1: signal_or_start needs workflow"),
        ("signal_or_start", "start", "rule 1: start takes no signal"),
        ("signal_or_start", "signal", "rule 1: signal takes no workflow"),
        ('workflow = "Renewal"', "workflow = Renewal", "line 6: this is no TOML"),
        ('signal = "asked"', 'signal = "asked"\nwhen = "data.["', "rule 1 when: is no JMESPath expression"),
        ('signal = "asked"', 'signal = "asked"\nsingal = "asked"', "rule 1 singal: "),
        (ONE[ONE.index("[[rule]]") :], "", "rule: "),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_used_is_named(old: str, new: str, said: str) -> None:
    assert old in ONE
    with pytest.raises(ConfigError) as caught:
        rules(ONE.replace(old, new))

    assert str(caught.value).startswith("rules.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_by_default_only_ids_and_a_time_are_told() -> None:
    event = an_event("renewal.requested", key="rx_1", id="e1", patient={"last_name": "Berry"}, request_id="r1")

    assert orjson.loads(payload(event, whole=False)) == {
        "account_id": "acct_1",
        "event_id": "e1",
        "key": "rx_1",
        "occurred_at": "2026-09-14T15:09:26Z",
        "source": "drx",
        "type": "renewal.requested",
    }
    assert orjson.loads(payload(event, whole=True))["event"]["data"]["patient"]["last_name"] == "Berry"


def test_every_event_has_a_request_id_of_its_own_that_stays() -> None:
    asked = [("workflow", "drx", "e1"), ("workflow", "drx", "e2"), ("workflow.b", "drx", "e1"), ("workflow", "q", "e1")]

    assert len({request_id(*each) for each in asked}) == len(asked)
    # Another release must send the same.
    assert request_id(*asked[0]) == "3f1e25af-12e9-5827-89af-5d9de35c3feb"
