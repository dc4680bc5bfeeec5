"""Every table that the program writes: columns, types, units, nulls.

Tables are Parquet, or Arrow files where training maps them into memory. Those of the feature store carry ``status`` and
``reason`` in their file metadata (see :mod:`affect.pipeline.store`), so that a unit that failed is an object with a
reason and no rows.
"""

import pyarrow as pa

VERSION = 2
"""Part of every address: a change of meaning makes old objects invisible instead of wrong."""

_FLOATS = pa.list_(pa.float32())
_HALVES = pa.list_(pa.float16())

VIDEO = pa.schema(
    [
        ("path", pa.string()),  # relative to the folder or bucket of videos
        ("bytes", pa.int64()),
        ("fingerprint", pa.string()),  # of path, size, first and last MiB
        ("width", pa.int32()),  # of the picture as shown, rotation applied
        ("height", pa.int32()),
        ("rotation", pa.int32()),  # degrees that a decoded frame is turned, counter-clockwise, to be upright
        ("has_audio", pa.bool_()),
        ("start_s", pa.float64()),  # container time of the first frame
        ("duration_s", pa.float64()),
        ("time_s", pa.list_(pa.float64())),  # presentation time of every frame, from the first one's
    ]
)
"""One row per video: what the probe found."""

FACE = pa.schema(
    [
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("face", pa.int16()),  # number within the frame; who is who is decided over the whole video
        ("box", _FLOATS),  # left, top, right, bottom as shares of the picture's width and height, grown
        ("score", pa.float32()),  # the detector's confidence
        ("embedding", _FLOATS),
        ("valence", pa.float32()),
        ("arousal", pa.float32()),
        ("expression", _FLOATS),  # logits in the order of affect.config.EXPRESSIONS
        ("lip_area", pa.float32()),  # inner-lip area in squared sides of the letterboxed crop; null without a mesh
        ("blendshapes", _FLOATS),  # 52 coefficients in [0, 1]; null without a mesh
        ("colors", _HALVES),  # square roots of the colour histograms of face and shoulders, one after the other
        ("shape", _FLOATS),  # logarithms of distances between rigid points of the mesh; null without a mesh
        ("thumbnail", pa.list_(pa.uint8())),  # the whole picture at 8 x 8, RGB: where it jumps, there is a scene cut
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
        ("vision", _HALVES),  # state at the last vision end
        ("patches", pa.list_(_HALVES)),  # mean state of each temporal patch
    ]
)
"""One row per segment and prompt."""

AUDIO = pa.schema(
    [
        ("segment", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("waveform", pa.list_(pa.int16())),  # mono, true length
    ]
)
"""One row per segment."""

TRACK_FRAMES = pa.schema(
    [
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("gold_valence", pa.float32()),  # null = not annotated
        ("gold_arousal", pa.float32()),
        ("face_valid", pa.bool_()),  # the face was found in this very frame
        ("bridged", pa.bool_()),  # not found, but before and after, a short time apart: the box is interpolated
        ("box", _FLOATS),  # as in FACE; null where the person is not in the picture
        ("face_embedding", _FLOATS),  # at a frame without a face the nearest one's; empty in a track without any
        ("face_valence", pa.float32()),  # the encoder's own, before any temporal model
        ("face_arousal", pa.float32()),
        ("lip_area", pa.float32()),  # null without a mesh
    ]
)
"""One row per frame of one person's track."""

TRACK_SEGMENTS = pa.schema(
    [
        ("segment", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("first_frame", pa.int32()),
        ("end_frame", pa.int32()),
        ("full", pa.bool_()),  # whether the segment has its full length
        ("block_edges", pa.list_(pa.int32())),  # frame edges of the one-second blocks
        ("behavior_valid", pa.bool_()),
        ("multimodal", _HALVES),
        ("vision", _HALVES),
        ("audio_valid", pa.bool_()),  # whether there is a waveform
        ("kept", pa.bool_()),  # the mouth filter's verdict
        ("verdict", pa.string()),  # why not
        ("waveform", pa.list_(pa.int16())),
    ]
)
"""One row per segment of one person's track."""

EMBEDDED_FRAMES = pa.schema(
    [
        ("frame", pa.int32()),
        ("embedding", _FLOATS),
        ("valence", pa.float32()),
        ("arousal", pa.float32()),
        ("valid", pa.bool_()),  # whether the modality saw the person here
    ]
)
"""What a trained unimodal model says of every frame of a track: what DCMMOE reads."""

EMBEDDED_BLOCKS = pa.schema(
    [
        ("segment", pa.int32()),
        ("block", pa.int32()),
        ("embedding", _FLOATS),
        ("valence", pa.float32()),
        ("arousal", pa.float32()),
        ("valid", pa.bool_()),  # the block has frames and its segment was kept
    ]
)
"""What a trained audio model says of every block of a track's segments: RAAV's audio tokens."""

SYSTEMS = ("face", "behavior", "audio", "dcmmoe", "raav")
"""The systems that predict, modalities first."""

PREDICTIONS = pa.schema(
    [
        ("video", pa.string()),
        ("person", pa.string()),  # main, left, right or a number from the left
        ("track", pa.string()),  # the track's name in label files
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("valence", pa.float32()),  # of the run's main system; null in a track that no modality ever saw
        ("arousal", pa.float32()),
        ("valid", pa.bool_()),  # whether any modality saw the person at this frame
        ("reason", pa.string()),  # why not
        *((f"{system}_{name}", pa.float32()) for system in SYSTEMS for name in ("valence", "arousal")),
    ]
)
"""One row per frame and person of one predicted video."""

OUTCOMES = pa.schema(
    [
        ("video", pa.string()),
        ("status", pa.string()),  # ok, degraded or failed
        ("people", pa.int32()),
        ("frames", pa.int32()),
        ("reason", pa.string()),
    ]
)
"""One row per video that was to be predicted."""

PEOPLE = pa.schema(
    [
        ("video", pa.string()),
        ("person", pa.string()),  # main, left, right or a number from the left
        ("frames", pa.int32()),  # of the video
        ("seen", pa.int32()),  # frames in which the face was found
        ("bridged", pa.int32()),  # frames between such, a short time apart
        ("first_s", pa.float64()),
        ("last_s", pa.float64()),
        ("x", pa.float64()),  # mean middle of the box, as shares of the picture
        ("y", pa.float64()),
        ("lip_area", pa.float64()),  # mean inner-lip area in squared sides of the crop; NaN without any mesh
        ("open_s", pa.float64()),  # seconds of open mouth by the audio filter's rule, before smoothing
    ]
)
"""One row per person of the videos that were drawn."""
