# One GPU instance that trains, publishes to Kafka and deletes itself. Three things end it, each without the others:
# run-once's call of the API, the dead man's switch inside (cloud-init), and Google's own limit, max_run_duration.
terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.20, < 8.0"
    }
  }
}

locals {
  limit_seconds = var.limit_minutes * 60
  name          = "lapwing-train-${substr(sha256(local.user_data), 0, 8)}"
  user_data = templatefile("${path.module}/../../cloud-init.yaml.tftpl", {
    cloud         = "gcp"
    run_once      = file("${path.module}/../../run-once")
    image         = var.image
    secret        = "gcp:${var.secret}"
    limit_seconds = local.limit_seconds
    grace_seconds = 20 # Google gives thirty seconds
    train         = var.train
  })
}

resource "google_service_account" "train" {
  project      = var.project
  account_id   = local.name
  display_name = "One training of Lapwing: reads its secret, deletes its instance"
}

resource "google_secret_manager_secret_iam_member" "train" {
  project   = var.project
  secret_id = regex("^projects/[^/]+/secrets/([^/]+)/", var.secret)[0]
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${google_service_account.train.email}"
}

resource "google_project_iam_custom_role" "end" {
  project     = var.project
  role_id     = replace(local.name, "-", "_")
  title       = "Delete one instance"
  permissions = ["compute.instances.delete"]
}

resource "google_project_iam_member" "end" {
  project = var.project
  role    = google_project_iam_custom_role.end.id
  member  = "serviceAccount:${google_service_account.train.email}"

  condition {
    title      = "itself"
    expression = "resource.name == 'projects/${var.project}/zones/${var.zone}/instances/${local.name}'"
  }
}

resource "google_compute_instance" "train" {
  project      = var.project
  zone         = var.zone
  name         = local.name
  machine_type = var.machine_type

  boot_disk {
    auto_delete = true
    initialize_params {
      image = var.boot_image
      size  = var.disk_gib
      type  = "pd-balanced"
    }
  }

  # g2 and a2 machines bring their GPUs; n1 machines are given one.
  dynamic "guest_accelerator" {
    for_each = var.accelerator == "" ? [] : [var.accelerator]
    content {
      type  = guest_accelerator.value
      count = 1
    }
  }

  network_interface {
    subnetwork = var.subnetwork
  }

  scheduling {
    provisioning_model          = var.spot ? "SPOT" : "STANDARD"
    preemptible                 = var.spot
    automatic_restart           = false
    on_host_maintenance         = "TERMINATE"
    instance_termination_action = "DELETE"
    max_run_duration {
      seconds = local.limit_seconds + 1800
    }
  }

  service_account {
    email  = google_service_account.train.email
    scopes = ["cloud-platform"]
  }

  metadata = {
    user-data              = local.user_data
    block-project-ssh-keys = "true"
  }

  depends_on = [google_secret_manager_secret_iam_member.train, google_project_iam_member.end]
}
