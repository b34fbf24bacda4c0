from __future__ import annotations

from bridge.settling.circuit import PROBE_FIRST_S, SUSPECTS_MAX, Circuit


def a_circuit() -> Circuit:
    return Circuit(spread=lambda _, high: high)


def test_a_systemic_failure_opens_it_and_a_probe_comes_after_a_while() -> None:
    circuit = a_circuit()

    circuit.failed("a", now=0.0)

    assert (circuit.state, circuit.probe(0.0), circuit.wait_s(0.0)) == ("open", False, 2 * PROBE_FIRST_S)
    assert (circuit.probe(2 * PROBE_FIRST_S), circuit.state) == (True, "half_open")


def test_there_is_one_probe_at_a_time() -> None:
    circuit = a_circuit()
    circuit.failed("a", now=0.0)
    circuit.probe(10.0)

    assert circuit.probe(10.0) is False


def test_a_probe_that_passes_closes_it() -> None:
    circuit = a_circuit()
    circuit.failed("a", now=0.0)
    circuit.probe(10.0)

    circuit.passed("b")

    assert circuit.closed


def test_probes_go_on_for_ever_ever_more_slowly_up_to_a_bound() -> None:
    circuit = a_circuit()
    circuit.failed("a", now=0.0)
    now, waits = 0.0, []
    for number in range(40):
        waits.append(circuit.wait_s(now))
        now += waits[-1]
        assert circuit.probe(now)
        circuit.failed(f"key_{number}", now=now)

    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1.0, 30.0)


def test_failures_of_calls_that_were_out_do_not_slow_the_probes() -> None:
    circuit = a_circuit()
    for key in "abcdefgh":
        circuit.failed(key, now=0.0)

    assert circuit.wait_s(0.0) == 1.0


def test_a_key_that_fails_again_after_others_passed_is_itself_at_fault() -> None:
    circuit = a_circuit()
    circuit.failed("bad", now=0.0)
    circuit.probe(10.0)
    circuit.passed("good")

    assert circuit.failed("bad", now=11.0) is True
    assert circuit.closed


def test_two_bad_keys_are_both_found() -> None:
    circuit = a_circuit()
    circuit.failed("bad", now=0.0)
    circuit.probe(10.0)
    circuit.failed("worse", now=10.0)
    circuit.probe(20.0)
    circuit.passed("good")

    assert (circuit.failed("bad", now=21.0), circuit.failed("worse", now=21.0)) == (True, True)


def test_in_an_outage_no_key_is_at_fault() -> None:
    circuit = a_circuit()

    assert not any(circuit.failed(key, now=float(number)) for number, key in enumerate("aabbaabb"))


def test_a_key_is_not_at_fault_when_others_fail_as_well_although_some_passed_before() -> None:
    circuit = a_circuit()
    circuit.failed("a", now=0.0)
    circuit.passed("b")
    circuit.failed("c", now=1.0)

    assert not any(circuit.failed("a", now=float(number)) for number in range(2, 9))


def test_keys_that_fail_again_together_are_not_at_fault_but_the_sink_is_away_once_more() -> None:
    circuit = a_circuit()
    for key in "abcdefgh":
        circuit.failed(key, now=0.0)
    circuit.passed("other")

    assert [circuit.failed(key, now=1.0) for key in "abcdefgh" * 2] == [True, True] + [False] * 14
    assert circuit.state == "open"


def test_a_pass_of_no_key_closes_it_and_puts_nobody_at_fault() -> None:
    """What the ledger did says nothing of a sink that is elsewhere."""
    circuit = a_circuit()
    circuit.failed("a", now=0.0)

    circuit.passed()

    assert (circuit.closed, circuit.failed("a", now=1.0)) == (True, False)


def test_keys_that_passed_together_are_above_suspicion() -> None:
    circuit = a_circuit()
    circuit.failed("a", now=0.0)
    circuit.failed("b", now=0.0)

    circuit.passed("a", "b")

    assert (circuit.suspects("a"), circuit.suspects("b")) == (False, False)


def test_a_key_that_passed_is_above_suspicion() -> None:
    circuit = a_circuit()
    circuit.failed("a", now=0.0)
    circuit.passed("b")
    circuit.passed("a")

    assert (circuit.suspects("a"), circuit.failed("a", now=1.0)) == (False, False)


def test_a_probe_without_word_lets_another_follow() -> None:
    circuit = a_circuit()
    circuit.failed("a", now=0.0)
    circuit.probe(10.0)

    circuit.stopped(now=10.0)

    assert (circuit.probe(10.0), circuit.probe(11.0)) == (False, True)


def test_a_bad_key_as_the_probe_neither_closes_nor_blocks_it() -> None:
    circuit = a_circuit()
    circuit.failed("bad", now=0.0)
    circuit.passed("good")
    circuit.failed("other", now=1.0)
    circuit.probe(10.0)

    assert circuit.failed("bad", now=10.0) is False
    assert (circuit.state, circuit.probe(20.0)) == ("open", True)


def test_suspects_are_bounded() -> None:
    circuit = a_circuit()
    for number in range(SUSPECTS_MAX + 1):
        circuit.failed(number, now=0.0)

    assert (circuit.suspects(0), circuit.suspects(SUSPECTS_MAX)) == (False, True)
