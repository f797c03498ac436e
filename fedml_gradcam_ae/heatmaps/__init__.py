"""Grad-CAM and LayerCAM heat maps of many uploads on the same probe images."""

from fedml_gradcam_ae.heatmaps.class_maps import class_maps, maps_and_outputs
from fedml_gradcam_ae.heatmaps.differentiable import differentiable_class_maps, differentiable_grad_cam
from fedml_gradcam_ae.heatmaps.gradcam import grad_cam
from fedml_gradcam_ae.heatmaps.layercam import layer_cam
from fedml_gradcam_ae.heatmaps.layout import resizable, shortest_side
from fedml_gradcam_ae.heatmaps.probe import SMALLEST_MAP, Probe, ProbeSettings, draw_probe
from fedml_gradcam_ae.heatmaps.scaling import min_max, resize
from fedml_gradcam_ae.heatmaps.target_layer import find_target_layer, hinting

__all__ = [
    "SMALLEST_MAP",
    "Probe",
    "ProbeSettings",
    "class_maps",
    "differentiable_class_maps",
    "differentiable_grad_cam",
    "draw_probe",
    "find_target_layer",
    "grad_cam",
    "hinting",
    "layer_cam",
    "maps_and_outputs",
    "min_max",
    "resizable",
    "resize",
    "shortest_side",
]
