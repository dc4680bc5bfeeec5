"""Tiny random checkpoints of Qwen3-VL and WavLM for the demo, so that the real loading code runs without a download.

Predictions for real people with them have no meaning. On the generated corpus their states depend on light and pitch.
Only the demo's frame encoder is trained, on crops of the corpus' training people (:mod:`affect.pipeline.demo_assets`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Subset of Qwen3-VL's chat template: messages with text and video, no tools and no images.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Factor on random weights: at HF's initial scale (.02) the states hardly depend on the input.
_QWEN_GAIN = 8.0


def _byte_tokenizer() -> Any:  # noqa: ANN401 -- transformers' own class, imported late
    """Byte-level tokenizer without merges: every byte is a token, so no vocabulary file is needed."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for token in _SPECIAL:
        vocabulary[token] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL)})
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def make_qwen(folder: Path, *, width: int = 64, seed: int = 0) -> None:
    """Writes a random Qwen3-VL with its processor.

    Args:
        folder: folder of the checkpoint.
        width: D, width of the states.
        seed: seed of the weights.
    """
    from transformers import Qwen3VLForConditionalGeneration

    text = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": len(_byte_tokenizer())}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "num_position_embeddings": 64}
    config = qwen_config(text, vision | {"deepstack_visual_indexes": [0, 1]})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear) and layer is not model.lm_head:
                layer.weight.mul_(_QWEN_GAIN)
    save_qwen(model, folder)


def qwen_config(text: Mapping[str, Any], vision: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- transformers' own class
    """Configuration of a Qwen3-VL of any size for the tokens of the byte-level tokenizer.

    Args:
        text: settings of the language model, e.g. ``hidden_size``.
        vision: settings of the vision encoder.
    """
    from transformers import Qwen3VLConfig

    tokenizer = _byte_tokenizer()
    token = {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIAL}
    half = text["head_dim"] // 2
    sections = [half - 2 * (5 * half // 16), 5 * half // 16, 5 * half // 16]  # 24, 20, 20 for a head dimension of 128
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": sections, "mrope_interleaved": True}
    fixed_text = {"max_position_embeddings": 8192, "pad_token_id": token["<|endoftext|>"], "rope_parameters": rope}
    fixed_vision = {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
    return Qwen3VLConfig(
        text_config={**text, **fixed_text},
        vision_config={**vision, **fixed_vision, "out_hidden_size": text["hidden_size"]},
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def save_qwen(model: Any, folder: Path) -> None:  # noqa: ANN401 -- transformers' own class
    """Writes a Qwen3-VL with a processor that uses the byte-level tokenizer."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model.save_pretrained(folder)
    pixels = {"shortest_edge": 16 * 64 * 64, "longest_edge": 16 * 128 * 128}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, merge_size=2, temporal_patch_size=2, size=pixels),
        tokenizer=_byte_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(size=pixels, cap_pixels_per_frame=False),
        chat_template=_CHAT_TEMPLATE,
    ).save_pretrained(folder)


def make_wavlm(folder: Path, *, seed: int = 0) -> None:
    """Writes a tiny random WavLM, with its feature extractor, whose states depend on pitch and timbre.

    On synthetic voices, ridge regression on its time-averaged states predicts held-out log pitch with a CCC of .94 to
    .98 and spectral tilt with .77 to .90 (three seeds); without the convolutions' biases .83 to .96 and .68 to .77.
    Larger random weights in the encoder do not help. A segment takes 10 ms on one core.

    Args:
        folder: folder of the checkpoint.
        seed: seed of the weights.
    """
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    settings = WavLMConfig(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(32,) * 7,
        conv_bias=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        num_buckets=32,
        max_bucket_distance=64,
        feat_extract_norm="layer",  # this and the next line as in WavLM-Large
        do_stable_layer_norm=True,
        layerdrop=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = WavLMModel(settings)
    backbone.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
