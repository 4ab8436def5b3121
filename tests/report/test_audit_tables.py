"""Tables of the audit: from what audit.json says, with a reason where it says nothing."""

from charter.report.audit import _notes, _own_chain, _waterfall
from charter.report.audit_tables import audit_tables, why_no_tables


def told(value, low=None, high=None, n=40, reason=None):
    return {"value": value, "low": low, "high": high, "n": n, "reason": reason}


def layers():
    one = {"accuracy": told(0.9, 0.8, 0.95), "control": told(0.5), "selectivity": told(0.4, 0.3, 0.45)}
    return {"middle": {"truth": one}, "last": {"truth": one}}


AUDIT = {
    "recursive": {
        "policies": ["initial", "sl-cai", "rl-cai"],
        "by_principle": {
            "truth": {
                "judging": told(0.53, 0.45, 0.62),
                "keeping": {"initial": told(0.9, 0.87, 0.93), "sl-cai": told(0.93), "rl-cai": told(0.92)},
                "broken_more_after_rl": told(0.05, 0.01, 0.09),
            }
        },
        "blind_spots": {
            "errors": told(0.16, 0.14, 0.18, 1416),
            "spots": [
                {
                    "name": "<b>kind</b>",
                    "wrongly_preferred_has_more": told(0.9, 0.7, 1.1),
                    "share_of_replies": {"initial": told(0.3), "sl-cai": told(0.4), "rl-cai": told(0.99)},
                    "change_per_reply": told(0.4, 0.3, 0.5),
                }
            ],
        },
    },
    "probes": {
        "num_replies": 400,
        "models": {"sl-cai": {"layers": layers()}, "reward model": {"layers": {}, "reason": "isn't there"}},
    },
}


def test_every_part_has_its_table():
    judging, spots, probes = audit_tables(AUDIT)
    shown = [figure.text for figure in judging[2].rows[0].figures]
    assert shown == ["53 %", "90 %", "93.0 %", "92.0 %", "5.00"]
    assert len(shown) == len(judging[2].columns) and judging[2].rows[0].figures[4].interval == "1.00 to 9.00"
    assert "16 %" in spots[1] and "1,416" in spots[1] and spots[2].rows[0].name == "<b>kind</b>"
    assert len(probes[2].columns) == len(probes[2].rows[0].figures) == 3  # only the model that was probed
    assert probes[2].rows[0].figures[2].text == "40.0"
    assert why_no_tables(AUDIT) == []


def test_what_is_not_known_is_said_and_has_no_table():
    nothing = {"recursive": {"by_principle": {}, "reason": "no gold"}, "probes": {"models": {}, "reason": "no gold"}}
    assert audit_tables(nothing) == [] and audit_tables({}) == []
    assert why_no_tables(nothing) == ["The recursive problem: not known, no gold.", "Probes: not known, no gold."]
    assert why_no_tables({}) == []


def test_a_run_without_a_chain_shows_no_waterfall_and_says_why():
    row = {"link": "goal_to_constitution", "agreement": {"value": 0.9}, "loss": {"value": 0.1}}
    told = {"waterfall": {"links": [row], "num_pairs": 9}, "chain": {"links": [], "reason": "no link gives a verdict"}}
    assert _waterfall(_own_chain(told)) == []
    assert "No chain of agreement: no link gives a verdict." in _notes(told)
    assert len(_waterfall(_own_chain({**told, "chain": {"links": [row], "reason": None}}))) == 1
