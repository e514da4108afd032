"""SkyPilot's own schemas of a task, for skypilot_test.go; SkyPilot itself takes 590 MB, too much for each run of the tests.

    pip install skypilot==0.14.1
    python3 docker/cloud/testdata/skypilot.py >docker/cloud/testdata/skypilot.json
"""
import json

from sky.utils import schemas

print(json.dumps({"from": "skypilot==0.14.1, sky.utils.schemas", "task": schemas.get_task_schema(), "resources": schemas.get_resources_schema()},
                 sort_keys=True, separators=(",", ":")))
