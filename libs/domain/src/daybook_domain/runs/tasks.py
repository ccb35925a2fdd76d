"""Task contracts of report runs."""

from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from daybook_domain.tasks import Task


class BuildReport(BaseModel):
    """The payload of `BUILD_REPORT`: the id of a row of `report_runs`, which has all the rest."""

    model_config = ConfigDict(extra="ignore")

    run_id: UUID


BUILD_REPORT = Task(name="reports.build", payload=BuildReport, timeout=timedelta(hours=1))
