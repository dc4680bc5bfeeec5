"""Valence and arousal for every frame of a video, from face, behaviour and voice, on one laptop or a Ray cluster.

Axis letters of tensor shapes, everywhere: B windows of a batch, T frames (or segments, or blocks) of a window,
S segments, K audio blocks, M modalities, E experts, D input width, H hidden width, N state width,
2 = (valence, arousal), valence first, both in [-1, 1].
"""

from affect import torchvision_cpu

torchvision_cpu.install()
