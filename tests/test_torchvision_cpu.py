"""Non-maximum suppression without torchvision's compiled operators."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from affect.torchvision_cpu import _nms


def slow(boxes: Tensor, scores: Tensor, iou_threshold: float) -> list[int]:
    """Every box against every better one that was kept; coordinates are whole numbers, so that areas are exact."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        left, top, right, bottom = boxes[i].tolist()
        for j in kept:
            other = boxes[j].tolist()
            width = max(0.0, min(right, other[2]) - max(left, other[0]))
            height = max(0.0, min(bottom, other[3]) - max(top, other[1]))
            areas = (right - left) * (bottom - top) + (other[2] - other[0]) * (other[3] - other[1])
            union = areas - width * height
            if union > 0 and width * height / union > iou_threshold:
                break
        else:
            kept.append(i)
    return kept


@st.composite
def detections(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Up to forty boxes on a small grid, some of them alike, some without area; equal scores happen."""
    corners = st.tuples(*[st.integers(0, 9)] * 4)
    found = draw(st.lists(corners, max_size=40))
    boxes = [[min(a, b), min(c, d), max(a, b), max(c, d)] for a, b, c, d in found]
    scores = draw(st.lists(st.integers(0, 20), min_size=len(found), max_size=len(found)))
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores, dtype=torch.float32) / 20


# No ratio of two areas below 82 comes near these, so that rounding decides nothing.
thresholds = st.sampled_from([0.0, 0.1003, 0.3007, 0.4511, 0.7013, 0.9502, 1.0])


@settings(deadline=None)
@given(detections(), thresholds)
def test_what_is_kept_is_what_the_definition_keeps(found: tuple, iou_threshold: float):
    kept = _nms(*found, iou_threshold)
    assert kept.dtype == torch.int64 and kept.tolist() == slow(*found, iou_threshold)


@settings(deadline=None)  # the first example imports torchvision
@given(detections(), thresholds)
def test_torchvisions_own_name_for_it_gives_the_same(found: tuple, iou_threshold: float):
    from torchvision.ops import nms

    assert nms(*found, iou_threshold).tolist() == _nms(*found, iou_threshold).tolist()


@settings(deadline=None)
@given(detections(), thresholds)
def test_what_was_kept_is_all_kept_again(found: tuple, iou_threshold: float):
    boxes, scores = found
    kept = _nms(boxes, scores, iou_threshold)
    assert _nms(boxes[kept], scores[kept], iou_threshold).tolist() == list(range(len(kept)))
    assert len(kept) == 0 or kept[0] == scores.argmax() or scores[kept[0]] == scores.max()


@settings(deadline=None)
@given(detections(), st.integers(0, 3))
def test_classes_do_not_suppress_each_other(found: tuple, num_classes: int):
    from torchvision.ops import batched_nms

    boxes, scores = found
    of = torch.arange(len(boxes)) % (num_classes + 1)
    kept = batched_nms(boxes, scores, of, 0.4511).tolist()
    rows = [torch.nonzero(of == n)[:, 0] for n in range(num_classes + 1)]
    expected = [row[n] for row in (r.tolist() for r in rows) for n in slow(boxes[row], scores[row], 0.4511)]
    assert sorted(kept) == sorted(expected)


def test_no_boxes_leave_none():
    kept = _nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.shape == (0,) and kept.dtype == torch.int64


def test_torchvision_can_be_imported_and_its_models_run():
    from torchvision.models import efficientnet_b0

    with torch.inference_mode():
        assert efficientnet_b0(num_classes=2).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
