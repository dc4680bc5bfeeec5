"""Forward pass of Qwen3-VL's base model over segments, without asking a GPU about its own tensors.

    x = embed(tokens), visual tokens replaced by the vision encoder's output;   states = decoder(x)

transformers' own forward pass reads token positions, masks of visual tokens and the sizes of pictures back from the
GPU, some 300 times per micro-batch, and attends to one temporal patch after the other. All of that follows from token
ids and grids, which the host has: :func:`lay_out` computes it beside the preparation of a micro-batch.

Source: ``Qwen3VLModel.forward`` and ``Qwen3VLVisionAttention.forward`` of transformers 5.17 to 5.24.
Differs: temporal patches of one size are attended to in one call; no attention mask, because windows are padded on the
    right and attention is causal, so that no state of a token depends on padding.
"""

from collections.abc import Mapping
from itertools import groupby
from types import MethodType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from jaxtyping import Float, Int
from torch import Tensor

Sizes = tuple[tuple[int, int], ...]
"""Runs of temporal patches of one size: number of patches, and of tokens of each."""


class Layout(NamedTuple):
    """Places and positions of the tokens of a micro-batch of B segments, padded on the right to L tokens.

    Args:
        position_ids: temporal, vertical and horizontal position of each token.
        visual: index in B * L of the V visual tokens.
        last: index in B * L of each segment's last token.
        vision_end: index in B * L of each segment's last vision-end token.
        end: number of tokens up to each segment's last vision-end token.
        after: position of the first token after the video, on all three axes.
        patches: of each segment, the number of temporal patches, and of visual tokens of each.
        encoder: arguments of the vision encoder that follow from the sizes of pictures.
    """

    position_ids: Int[Tensor, "3 B L"]
    visual: Int[Tensor, " V"]
    last: Int[Tensor, " B"]
    vision_end: Int[Tensor, " B"]
    end: Int[Tensor, " B"]
    after: Int[Tensor, "B 1"]
    patches: Sizes
    encoder: dict[str, Any]


def lay_out(model: Any, batch: Mapping[str, Tensor], device: torch.device) -> Layout:  # noqa: ANN401 -- transformers' own
    """Computes the layout of a micro-batch.

    Args:
        model: base model; its weights are not used.
        batch: the processor's token tensors, on the CPU, padded on the right.
        device: device of the model.
    """
    ids, valid, grid = batch["input_ids"], batch["attention_mask"].bool(), batch["video_grid_thw"]
    assert valid[:, 0].all(), "tokens are padded on the left"
    positions, deltas = model.get_rope_index(
        ids, batch["mm_token_type_ids"], video_grid_thw=grid, attention_mask=batch["attention_mask"]
    )
    first = torch.arange(len(ids)) * ids.shape[1]  # index in B * L of each segment's first token
    end = (torch.arange(ids.shape[1]) * (ids == model.config.vision_end_token_id)).amax(dim=1) + 1
    places = {
        "position_ids": positions,
        "visual": torch.nonzero((ids == model.config.video_token_id).flatten()).flatten(),
        "last": first + valid.sum(dim=1) - 1,
        "vision_end": first + end - 1,
        "end": end,
        "after": end[:, None] + deltas,
    }
    return Layout(
        **{name: value.to(device) for name, value in places.items()},
        patches=tuple((t, h * w // model.visual.spatial_merge_size**2) for t, h, w in grid.tolist()),
        encoder=_encoder_arguments(model.visual, grid, device),
    )


def _encoder_arguments(visual: Any, grid: Int[Tensor, "B 3"], device: torch.device) -> dict[str, Any]:  # noqa: ANN401
    """Arguments of the vision encoder: positions of its tokens, and the sizes of temporal patches."""
    from transformers.utils.generic import is_flash_attention_requested
    from transformers.vision_utils import (
        get_vision_cu_seqlens,
        get_vision_interpolation_indices_and_weights,
        get_vision_position_ids,
    )

    merge = visual.spatial_merge_size
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    bounds = get_vision_cu_seqlens(grid)
    sizes = bounds.diff().tolist()
    arguments = {
        "interp_indices": indices.to(device),
        "interp_weights": weights.to(device),
        "position_ids": get_vision_position_ids(grid, merge).to(device),
        "cu_seqlens": bounds.to(device),
        "max_seqlen": max(sizes),
    }
    if not is_flash_attention_requested(visual.config):  # flash attention takes any sizes in one call
        arguments["sizes"] = tuple((len(list(run)), size) for size, run in groupby(sizes))
    return {"grid_thw": grid, **arguments}


def prepare_model(model: Any, *, compiled: bool) -> None:  # noqa: ANN401 -- transformers' own class
    """Replaces the parts of a model that wait for the GPU; compiles its layers if asked to.

    Args:
        model: base model.
        compiled: whether the layers of decoder and vision encoder are compiled at their first call.
    """
    from transformers.utils.generic import is_flash_attention_requested

    visual, decoder = model.visual, model.language_model
    decoder._deepstack_process = _add_visual
    if not is_flash_attention_requested(visual.config):
        for block in visual.blocks:
            block.attn.forward = MethodType(_attend, block.attn)
    if compiled:
        for layer in (*visual.blocks, *decoder.layers):
            layer.compile(dynamic=True)


def prefill(
    model: Any,  # noqa: ANN401 -- transformers' own class
    ids: Int[Tensor, "B L"],
    pixels: Float[Tensor, "patches values"],
    layout: Layout,
    **cache: Any,  # noqa: ANN401
) -> Float[Tensor, "B*L D"]:
    """Computes the states of all tokens, after the final norm.

    Args:
        model: base model after :func:`prepare_model`.
        ids: tokens, padded on the right.
        pixels: the processor's pictures.
        layout: from :func:`lay_out`.
        cache: arguments of the decoder that concern its cache.
    """
    visual = model.visual
    seen = visual(pixels.to(visual.dtype), **layout.encoder)
    x = model.get_input_embeddings()(ids)
    x = x.flatten(0, 1).index_copy(0, layout.visual, seen.pooler_output.to(x.dtype)).view_as(x)
    states = model.language_model(
        inputs_embeds=x,
        position_ids=layout.position_ids,
        visual_pos_masks=layout.visual,
        deepstack_visual_embeds=seen.deepstack_features,
        **cache,
    ).last_hidden_state
    return states.flatten(0, 1)


def _add_visual(
    states: Float[Tensor, "B L D"], visual: Int[Tensor, " V"], embeds: Float[Tensor, "V D"]
) -> Float[Tensor, "B L D"]:
    """Adds features of the vision encoder to the states of visual tokens, which are given by index instead of mask."""
    return states.flatten(0, 1).index_add(0, visual, embeds.to(states.dtype)).view_as(states)


def _attend(
    self: Any,  # noqa: ANN401 -- transformers' own class
    hidden_states: Float[Tensor, "N D"],
    position_embeddings: tuple[Tensor, Tensor],
    sizes: Sizes,
    **_: Any,  # noqa: ANN401
) -> Float[Tensor, "N D"]:
    """Attention within each temporal patch; patches of one size in one call.

    Args:
        self: attention layer of the vision encoder.
        hidden_states: vision tokens of all patches.
        position_embeddings: cosines and sines of their positions.
        sizes: runs of patches of one size.
    """
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

    q, k, v = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).unbind(1)  # (N, heads, d)
    q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
    totals = [number * size for number, size in sizes]
    done = []
    for run, *parts in zip(sizes, *(x.split(totals) for x in (q, k, v)), strict=True):
        own_q, own_k, own_v = (x.unflatten(0, run).transpose(1, 2) for x in parts)  # (patches, heads, size, d)
        done.append(F.scaled_dot_product_attention(own_q, own_k, own_v, scale=self.scaling))
    return self.proj(torch.cat([part.transpose(1, 2).flatten(2).flatten(0, 1) for part in done]))
