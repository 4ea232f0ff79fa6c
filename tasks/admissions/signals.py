"""The signals that admissions sends."""

from signalbus import Signal

cohort_saved = Signal()
student_edu_status_updated = Signal()
