"""Real rounds, stored as what detectors need to see, so that a score can be tried on all of them in seconds.

`python -m benchmark.studies.replay CONFIG --out DIR` runs the configuration's federations without attack and, in every
round, stages each of its attacks on the same honest uploads. A `.npz` file per federation keeps heat maps, logits,
lengths and inner products of all uploads, a few megabytes instead of the gigabytes that the uploads are.

views.py: what is kept of one upload; recorder.py: what is kept of a round; file.py: the file.
"""
