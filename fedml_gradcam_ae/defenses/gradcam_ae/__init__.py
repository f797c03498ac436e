"""The GradCAM-AE defense, with its two profiles."""

from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE as GradCAMAE
