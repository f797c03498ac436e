"""How `gradcam_ae` scores a round: as published (`paper.py`), or so that colluders do not get away (`robust.py`)."""
