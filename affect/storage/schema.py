"""Schemas of every table that the program writes: columns, types, units, nulls.

Tables are Parquet, or Arrow files where training maps them into memory. Tables of the feature store have ``status`` and
``reason`` in their file metadata (see :mod:`affect.storage.store`), so a failed unit is an object with a reason and
without rows.
"""

from collections.abc import Iterable

import pyarrow as pa

SIDES = ("left", "top", "right", "bottom")
"""Sides of a face's box, as shares of the picture's width and height."""
VERSION = 4
"""Version of the tables, part of every address: after a change of meaning, old objects are not found."""
PROBE_VERSION = 2
"""Version of probes, part of their keys."""
MODEL_VERSION = 2
"""Version of trained models and of their outputs, part of their addresses."""

_FLOATS = pa.list_(pa.float32())
_HALVES = pa.list_(pa.float16())

VIDEO = pa.schema(
    [
        ("path", pa.string()),  # relative to the folder or bucket of videos
        ("bytes", pa.int64()),
        ("fingerprint", pa.string()),  # hash of path, size, first and last MiB
        ("content", pa.string()),  # hash of size, first and last MiB: independent of the name
        ("width", pa.int32()),  # after rotation
        ("height", pa.int32()),
        ("rotation", pa.int32()),  # degrees counter-clockwise that turn a decoded frame upright
        ("has_audio", pa.bool_()),
        ("start_s", pa.float64()),  # container time of the first frame
        ("duration_s", pa.float64()),
        ("time_s", pa.list_(pa.float64())),  # presentation time of every frame, 0 for the first one
    ]
)
"""Probe of a video: one row."""

FACE = pa.schema(
    [
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("face", pa.int16()),  # number within the frame; identities are assigned over the whole video
        ("box", _FLOATS),  # left, top, right, bottom as shares of width and height; grown by the margin
        ("score", pa.float32()),  # the detector's confidence
        ("embedding", _FLOATS),  # empty without an encoder
        ("valence", pa.float32()),  # null without an encoder, as the next two
        ("arousal", pa.float32()),
        ("expression", _FLOATS),  # logits in the order of affect.settings.names.EXPRESSIONS
        ("lip_area", pa.float32()),  # inner-lip area in squared sides of the letterboxed crop; null without a mesh
        ("blendshapes", _FLOATS),  # 52 coefficients in [0, 1]; null without a mesh
        ("colors", _HALVES),  # square roots of the colour histograms of face and shoulders, concatenated
        ("shape", _FLOATS),  # logarithms of distances between rigid points of the mesh; null without a mesh
        ("thumbnail", pa.list_(pa.uint8())),  # the whole picture at 8 x 8, RGB: a jump is a scene cut
    ]
)
"""One row per frame and face. A frame without a face has no row."""

BEHAVIOR = pa.schema(
    [
        ("segment", pa.int32()),
        ("prompt", pa.string()),  # neutral, left or right
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("multimodal", _HALVES),  # state of the last token
        ("vision", _HALVES),  # state of the last vision-end token
        ("patches", pa.list_(_HALVES)),  # mean state of each temporal patch
        (
            "shown_s",
            pa.list_(pa.float64()),
        ),  # times of the pictures, from the video's first frame; two per patch
        ("micro_batch", pa.int32()),  # number of segments in the forward pass
    ]
)
"""One row per segment and prompt, except segments with a state that is not finite. If the model rates, a further column
:data:`RATING`: valence, arousal."""

DESCRIPTION = pa.schema(
    [
        ("video", pa.string()),  # path relative to the folder or bucket of videos
        ("segment", pa.int32()),
        ("prompt", pa.string()),  # neutral, left or right
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("text", pa.string()),
    ]
)
"""One row per segment and prompt: the vision-language model's description."""

AUDIO = pa.schema(
    [
        ("segment", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("waveform", pa.list_(pa.int16())),  # mono, true length
    ]
)
"""One row per segment. With a rater, a further column :data:`RATING`: valence, arousal, dominance."""

RATING = pa.field("rating", _FLOATS)
"""Ratings of a segment in [-1, 1] by the encoder itself; null where they are not finite or there is no sound."""

TRACK = {
    "frames": pa.schema(
        [
            ("frame", pa.int32()),
            ("time_s", pa.float64()),
            ("gold_valence", pa.float32()),  # null = not annotated
            ("gold_arousal", pa.float32()),
        ]
    ),
    "segments": pa.schema(
        [
            ("segment", pa.int32()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("first_frame", pa.int32()),
            ("end_frame", pa.int32()),
            ("full", pa.bool_()),  # whether the segment has its full length
            ("block_edges", pa.list_(pa.int32())),  # frame edges of the one-second blocks
        ]
    ),
    "face": pa.schema(
        [
            ("frame", pa.int32()),
            ("valid", pa.bool_()),  # the face was found in this frame
            ("embedding", _FLOATS),  # of the nearest frame with a face; empty in a track without one
            ("lip_area", pa.float32()),  # null without a mesh
        ]
    ),
    "behavior": pa.schema(
        [
            ("segment", pa.int32()),
            ("valid", pa.bool_()),  # whether the segment has states
            ("multimodal", _HALVES),
            ("vision", _HALVES),
            ("patches", _HALVES),  # states of the temporal patches, concatenated; empty where not valid
            ("patch_first_frame", pa.list_(pa.int32())),  # first frame of each temporal patch
            ("patch_end_frame", pa.list_(pa.int32())),
        ]
    ),
    "audio": pa.schema(
        [
            ("segment", pa.int32()),
            ("valid", pa.bool_()),  # whether there is a waveform that is not silence
            ("kept", pa.bool_()),  # the mouth filter's verdict
            ("verdict", pa.string()),  # why not kept: no sound, silence with its level, or the mouth
        ]
    ),
    "ratings": pa.schema(
        [
            ("frame", pa.int32()),
            ("ratings", _FLOATS),  # by an encoder, valence and arousal first; without evidence null, or all NaN
        ]
    ),
    "waveforms": pa.schema(
        [
            ("segment", pa.int32()),
            ("waveform", pa.list_(pa.int16())),  # as in AUDIO; empty without sound
        ]
    ),
}
"""Tables of one person's track: times and labels per frame, segments, and the features of each modality. The waveforms
belong to the video; all its tracks share them."""

TRUNK = pa.schema(
    [
        ("segment", pa.int32()),
        ("num_samples", pa.int32()),  # true length of the waveform
        ("states", pa.list_(_HALVES)),  # after the last frozen layer, for the waveform padded to a full segment
    ]
)
"""One row per segment of a video: output of the audio model's frozen layers, input of its trained ones."""

EMBEDDED_FRAMES = pa.schema(
    [
        ("frame", pa.int32()),
        ("embedding", _FLOATS),
        ("valence", pa.float32()),
        ("arousal", pa.float32()),
        ("valid", pa.bool_()),  # whether the modality has evidence at this frame
    ]
)
"""Outputs of a trained unimodal model for every frame of a track: input of DCMMOE."""

EMBEDDED_BLOCKS = pa.schema(
    [
        ("segment", pa.int32()),
        ("block", pa.int32()),
        ("embedding", _FLOATS),
        ("valence", pa.float32()),
        ("arousal", pa.float32()),
        ("valid", pa.bool_()),  # whether the block has frames and its segment was kept
    ]
)
"""Outputs of a trained audio model for every block of a track's segments: RAAV's audio tokens."""


def judged(modalities: Iterable[str]) -> pa.Schema:
    """Answers of a trained model on a labelled track, one row per frame.

    Args:
        modalities: all that there are.
    """
    return pa.schema(
        [
            ("frame", pa.int32()),
            ("valence", pa.float32()),  # NaN in a track of which the model has no evidence
            ("arousal", pa.float32()),
            ("gates", _FLOATS),  # of a fusion: weight of each source, 0 where there is no evidence
            # of a fusion: its answer without the evidence of a modality; NaN of other models
            *((f"without_{m}_{name}", pa.float32()) for m in modalities for name in ("valence", "arousal")),
        ]
    )


SCORES = pa.schema(
    [
        ("system", pa.string()),
        ("without", pa.string()),  # modality whose evidence was removed; empty: none
        ("videos", pa.int32()),
        *((f"{name}{end}", pa.float64()) for name in ("valence", "arousal", "mean") for end in ("", "_low", "_high")),
        ("frames", pa.int64()),
    ]
)
"""One row per system: CCC with its 95 % interval over videos; NaN for constant labels or too few videos."""

PER_VIDEO = pa.schema(
    [
        ("system", pa.string()),
        ("video", pa.string()),
        ("frames", pa.int64()),  # annotated frames
        *((name, pa.float64()) for name in ("valence", "arousal", "mean")),  # NaN for constant labels
    ]
)
"""CCC of a system on a video."""

GATES = pa.schema(
    [
        ("system", pa.string()),
        ("track", pa.string()),
        ("second", pa.int32()),
        ("source", pa.string()),  # weighted source: a modality, or a pair of query and key modality
        ("weight", pa.float32()),  # mean over the second
    ]
)
"""Gate weights of a fusion, per source and second."""


def predictions(modalities: Iterable[str], systems: Iterable[str]) -> pa.Schema:
    """Predictions of one video, one row per frame and person.

    Args:
        modalities: all that there are.
        systems: all that there are.
    """
    modalities = list(modalities)
    return pa.schema(
        [
            ("video", pa.string()),
            ("person", pa.string()),  # main, left, right or a number from the left
            ("track", pa.string()),  # the track's name in label files
            ("frame", pa.int32()),
            ("time_s", pa.float64()),
            ("valence", pa.float32()),  # of the run's main system; null in a track without evidence of any modality
            ("arousal", pa.float32()),
            ("valence_spread", pa.float32()),  # half the range of overlapping windows' answers; null where one answers
            ("arousal_spread", pa.float32()),
            ("valid", pa.bool_()),  # whether any modality that the main system needs has evidence at this frame
            ("reason", pa.string()),  # which modality has no evidence, and why; empty where all have
            *((f"{system}_{name}", pa.float32()) for system in systems for name in ("valence", "arousal")),
            *((f"{m}_valid", pa.bool_()) for m in modalities),  # whether the modality has evidence at this frame
            *((f"{m}_reason", pa.string()) for m in modalities),  # why not; empty where it has
            *((f"{m}_trust", pa.float32()) for m in modalities),  # share in the main system's gates; null without them
            *((f"face_{side}", pa.float32()) for side in SIDES),  # the grown box, as in FACE; null where none was found
        ]
    )


OUTCOMES = pa.schema(
    [
        ("video", pa.string()),
        ("status", pa.string()),  # ok, degraded or failed
        ("people", pa.int32()),
        ("frames", pa.int32()),  # sum over all people
        ("duration_s", pa.float64()),  # length of the video; 0 if it cannot be used
        ("reason", pa.string()),
    ]
)
"""One row per video of a prediction job."""

PEOPLE = pa.schema(
    [
        ("video", pa.string()),
        ("person", pa.string()),  # main, left, right or a number from the left
        ("frames", pa.int32()),  # frames of the video
        ("seen", pa.int32()),  # frames in which the face was found
        ("bridged", pa.int32()),  # frames in short gaps between those
        ("first_s", pa.float64()),
        ("last_s", pa.float64()),
        ("x", pa.float64()),  # mean centre of the box, as shares of the picture
        ("y", pa.float64()),
        ("lip_area", pa.float64()),  # mean inner-lip area in squared sides of the crop; NaN without a mesh
        ("open_s", pa.float64()),  # seconds of open mouth by the mouth filter, before smoothing
        ("segments", pa.int32()),
        ("kept", pa.int32()),  # segments that the mouth filter keeps
    ]
)
"""One row per person of the videos with an overlay film."""

MOUTHS = pa.schema(
    [
        ("video", pa.string()),
        ("person", pa.string()),
        ("segment", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("open_s", pa.float64()),  # seconds of open mouth, smoothed
        ("coverage", pa.float64()),  # share of the segment's frames with a mesh
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # why it is not kept
    ]
)
"""Verdict of the mouth filter: one row per segment and person of the videos with an overlay film."""
