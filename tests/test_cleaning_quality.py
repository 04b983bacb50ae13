"""The labelled documents: complete, reproducible, and the presets' decisions on them."""

import pytest

from benchmarks.cleaning_quality import digest, labelled, scores


@pytest.fixture(scope="module")
def rows():
    return labelled()


def test_every_document_has_a_label_and_a_reason(rows):
    assert len(rows) >= 300 and len({digest(row["text"]) for row in rows}) == len(rows)
    assert {row["label"] for row in rows} == {"keep", "drop"} and all(row["reason"] for row in rows)
    assert {row["source"] for row in rows if row["stratum"] == "random"} == {"cc100", "mc4", "wiki"}
    assert all(row["id"] for row in rows)


@pytest.mark.parametrize("preset", ["light", "swallow", "fineweb2", "llm-jp"])
def test_presets_find_junk(rows, preset):
    precision, recall, junk = scores(rows, preset)
    assert precision > sum(row["label"] == "keep" for row in rows) / len(rows)  # else the rules do harm
    assert junk > 0.5 and recall > 0.4
