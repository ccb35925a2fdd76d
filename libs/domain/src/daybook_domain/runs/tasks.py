"""What may the worker be asked about reports?"""

from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from daybook_domain.tasks import Task


class BuildReport(BaseModel):
    """Names the row of `report_runs` that says what to do; everything else is read there."""

    model_config = ConfigDict(extra="ignore")

    run_id: UUID


BUILD_REPORT = Task(name="reports.build", payload=BuildReport, timeout=timedelta(hours=1))
