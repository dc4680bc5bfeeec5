"""Benchmarks of speed, memory and fault tolerance; speeds are compared within one run.

    python jobs/benchmark.py PART
    python jobs/benchmark.py chaos --rounds N --seed S
    python jobs/benchmark.py gpu [--minutes 7] [--device cpu] [--quick] [--out FOLDER]

encoder      crops per second through the frame encoder as used / eager float32 in batches of 32; needs torch(vision)
preparation  face crops per second from boxes to a batch / a loop with PIL that writes and reads JPEG
face         frames per second of the face stage with decoding / of its models alone on crops made beforehand
blendshapes  frames per second of the face stage by the mesh alone / with GRADA at its true size
onnx         crops per second of a network of EfficientNet-B0's size in onnxruntime / torch eager, batches of 1 to 32
memory       resident memory of the face stage along a long video
qwen         segments per second / in the authors' way (one by one, all logits, all layers, a text), and three prompts
             at once / one by one; needs torch and transformers only
prefill      tokens per second of the prefill by micro-batch, on a GPU at the true size; needs the same
rating       time of states and the vision-language model's rating / of states alone, at its true widths; needs the same
scan         forward and backward of the selective scan / a loop that indexes its tensors; needs torch only
behavior     segments per second of the behaviour stage with decoding / of its model alone
wavlm        segments per second through WavLM-Large in batches / one by one, in float32 and bfloat16, and with the
             attention of transformers; needs torch and transformers only
finetune     a training step of WavLM-Large on stored states of its frozen layers / on waveforms; needs the same
waveforms    share of the time of fine-tuning that is spent waiting for Ray Data
decode       seconds of sound decoded per second
pipeline     frames per second through the Ray pipeline / the same model calls in a plain loop on the same cores
protections  share of the time of extraction that the store, checksums, attempt markers and time limits take
experts      training steps per second of DCMMOE with batched experts / a loop over six stacks; needs torch only
step         training steps per second of both fusions in bfloat16 and compiled / in float32; needs torch only
loader       windows per second into batches / with a loader of one dictionary per frame; needs torch only
centering    CCC on unseen people whose embeddings have offsets of their own, with and without person centring
plan         estimated / measured time of extraction, training and prediction
status       seconds and requests to read the state of a store of 100,000 videos on a disk and 10,000 in a bucket; time
             and memory to plan a million that are only listed
bucket       extraction from and to an S3 server on this machine / on its disk
nodes        extraction on two nodes of a core each / on one
scale        time of the job's own process per clip, with one clip to a block / as extraction has them; up to 120 idle
             actors and 100,000 clips
intervals    coverage of 95 % intervals of the CCC over few videos: percentile bootstrap | jackknife as used
tune         overhead of a search, parallel trials, ASHA against the whole grid, memory of shared features
chaos        rounds of kills, full disks, damaged objects and faulty buckets: is anything lost?
corpus       a corpus of the size of Aff-Wild2 with random features: assembly, and data against steps of an epoch
gpu          check of a GPU machine: every model on the GPU against the CPU, training that has to learn, the
             vision-language model at its true size, speeds, mamba-ssm's kernel, torch.compile; exit code 1 if a check
             fails; --device cpu --quick tries the checks themselves; needs torch and transformers only
"""

import argparse
import sys
from pathlib import Path

from benchmarks import (
    audio,
    behavior,
    centering,
    extraction,
    gpu,
    intervals,
    planning,
    remote,
    stream,
    training,
    tuning,
)

PARTS = {
    part.__name__: part
    for part in (
        extraction.encoder,
        extraction.preparation,
        extraction.face,
        extraction.blendshapes,
        extraction.onnx,
        extraction.memory,
        behavior.qwen,
        behavior.prefill,
        behavior.rating,
        behavior.scan,
        behavior.behavior,
        audio.wavlm,
        audio.finetune,
        audio.waveforms,
        audio.decode,
        extraction.pipeline,
        extraction.protections,
        training.experts,
        training.step,
        training.loader,
        training.corpus,
        centering.centering,
        planning.plan,
        remote.status,
        remote.bucket,
        remote.nodes,
        stream.scale,
        intervals.intervals,
        tuning.tune,
    )
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "chaos", "gpu"])
    parser.add_argument("--rounds", type=int, default=20, help="number of kills of chaos")
    parser.add_argument("--seed", type=int, default=0, help="seed of chaos")
    parser.add_argument("--minutes", type=float, default=gpu.MINUTES, help="time of gpu, all its parts together")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="device of gpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes of gpu, to try the checks themselves")
    parser.add_argument("--out", type=Path, help="folder for gpu.json; a new temporary folder if not given")
    arguments = parser.parse_args()
    if arguments.part == "chaos":
        from benchmarks.chaos import chaos  # imports Ray, which the benchmarks of models do not need

        sys.exit(0 if chaos(arguments.rounds, arguments.seed) else 1)
    if arguments.part == "gpu":
        fine = gpu.gpu(arguments.minutes, arguments.device, quick=arguments.quick, out=arguments.out)
        sys.exit(0 if fine else 1)
    PARTS[arguments.part]()
