"""Speed as ratios, both sides in one run.

    python jobs/benchmark.py PART
    python jobs/benchmark.py chaos --rounds N --seed S

encoder      crops per second through the frame encoder as shipped / eager float32 in batches of 32; needs torch(vision)
preparation  boxes to a normalised batch / a loop over frames with PIL that writes and reads JPEG
face         frames per second of the face stage, decoding and all / of its models alone on what was cut out beforehand
memory       resident memory of the face stage along a long video
qwen         states of segments / the authors' way (one by one, all logits, all layers, a text), and three prompts at
             once / one by one; needs torch and transformers alone
prefill      tokens a second of the prefill by micro-batch, on a GPU at the true size; needs the same
scan         forward and backward of the selective scan / a loop that indexes its tensors; needs torch alone
behavior     segments per second of the behaviour stage, decoding and all / of its model alone
wavlm        segments through WavLM-Large in batches / one by one, in float32 and bfloat16, and with transformers' own
             attention; needs torch and transformers alone
finetune     a training step of WavLM-Large on stored states of its frozen layers / on waveforms; needs the same
waveforms    share of fine-tuning's time that is spent waiting for Ray Data
decode       seconds of sound decoded a second
pipeline     frames per second through the Ray pipeline / the same model calls in a plain loop on the same cores
protections  share of extraction's time that the store, its checksums, markers and limits take
experts      DCMMOE's batched experts / a loop over six stacks, one training step at the paper's size; needs torch alone
step         a training step of both fusions in float32 / in bfloat16 and compiled; needs torch alone
loader       windows per second into batches / a loader of one dictionary per frame; needs torch alone
plan         what plans of extraction, training and prediction say / what it then takes
status       seconds and calls until the state of a store of 10,000 videos is known, on a disk and in a bucket
bucket       extraction from and to an S3 server on this machine / on its disk
nodes        extraction on two nodes of a core each / on one
intervals    how often 95 % intervals over few videos hold the population's CCC: percentile bootstrap | as computed
tune         a search's overhead, trials side by side, ASHA against the whole grid, memory of shared features
chaos        rounds of kills, full disks, damaged objects and bad buckets: is anything lost?
corpus       a corpus of Aff-Wild2's size with random features: assembly, and a DCMMOE epoch's data against its steps
"""

import argparse
import sys

from benchmarks import audio, behavior, extraction, intervals, planning, remote, training, tuning

PARTS = {
    part.__name__: part
    for part in (
        extraction.encoder,
        extraction.preparation,
        extraction.face,
        extraction.memory,
        behavior.qwen,
        behavior.prefill,
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
        planning.plan,
        remote.status,
        remote.bucket,
        remote.nodes,
        intervals.intervals,
        tuning.tune,
    )
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "chaos"])
    parser.add_argument("--rounds", type=int, default=20, help="kills of chaos")
    parser.add_argument("--seed", type=int, default=0, help="of chaos")
    arguments = parser.parse_args()
    if arguments.part == "chaos":
        from benchmarks.chaos import chaos  # imports ray, which machines for the models' parts need not have

        sys.exit(0 if chaos(arguments.rounds, arguments.seed) else 1)
    PARTS[arguments.part]()
