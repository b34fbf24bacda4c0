from hypothesis import given
from hypothesis import strategies as st

from bridge.spool.payload import Content, pack, unpack

BYTES = st.binary(max_size=64)
CONTENTS = st.tuples(
    BYTES,
    st.none() | BYTES,
    st.lists(st.tuples(st.text(max_size=8), BYTES), max_size=20),
    st.integers(-(2**63), 2**63 - 1),
)


@given(CONTENTS)
def test_a_record_comes_back_from_the_spool_as_it_was(content: Content) -> None:
    assert unpack(pack(*content)) == content
