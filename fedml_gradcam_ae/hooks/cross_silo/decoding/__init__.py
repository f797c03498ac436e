"""Decoder for FedML's messages from untrusted senders, which are pickles: it reads them without unpickling."""

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Budget
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import KINDS, Kind, Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.messages import Envelope, decode_message, decode_value

__all__ = ["KINDS", "Budget", "Envelope", "Kind", "Undecodable", "decode_message", "decode_value"]
