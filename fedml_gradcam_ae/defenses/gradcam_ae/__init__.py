"""The GradCAM-AE defense with its two profiles, `robust` and `paper`."""

from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE as GradCAMAE
