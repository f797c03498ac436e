"""Replay sets: real rounds, reduced to what detectors need, so that a score can be tried on all of them in seconds.

`python -m benchmark.studies.replay CONFIG --out DIR` runs the configuration's federations without attack. In every
round, it stages each of the configuration's attacks on the same honest uploads. A `.npz` file per federation keeps heat
maps, logits, lengths and inner products of all uploads: a few megabytes in place of the gigabytes of the uploads.

views.py: what is kept of one upload; recorder.py: what is kept of a round; file.py: the file.
"""
