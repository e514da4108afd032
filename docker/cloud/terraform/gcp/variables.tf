variable "train" {
  description = "What lapwing train takes: [\"--topic\", \"cars\", \"--model\", \"cars\", \"--engine\", \"cuda\"]. No credentials."
  type        = list(string)
  validation {
    condition     = length(var.train) > 0 && alltrue([for a in var.train : !can(regex("[\\r\\n]|^-X|^--property|^--[a-z-]*password", a))])
    error_message = "Arguments of lapwing train, without line breaks and without the Kafka client's properties: those belong into the secret."
  }
}

variable "secret" {
  description = "Version of a secret of the Secret Manager that holds lapwing.yaml: projects/P/secrets/S/versions/latest."
  type        = string
  validation {
    condition     = can(regex("^projects/[A-Za-z0-9:._-]+/secrets/[A-Za-z0-9_-]+/versions/[a-z0-9_-]+$", var.secret))
    error_message = "The name of a secret's version; never its content."
  }
}

variable "image" {
  description = "The image that docker build --target gpu made, with its digest: registry/lapwing-gpu@sha256:…"
  type        = string
  validation {
    condition     = can(regex("^[a-zA-Z0-9._:/@-]+$", var.image))
    error_message = "The name of a container image."
  }
}

variable "project" {
  description = "Project in which the instance runs."
  type        = string
}

variable "zone" {
  description = "Zone that has the GPU."
  type        = string
}

variable "subnetwork" {
  description = "Subnetwork from which the brokers, the registry of the image and Google's APIs are reached; nothing needs to reach the instance."
  type        = string
}

variable "machine_type" {
  description = "g2-standard-*: L4, a2-highgpu-*: A100, a3-highgpu-*: H100, n1-standard-* with accelerator: T4."
  type        = string
  default     = "g2-standard-4"
}

variable "accelerator" {
  description = "GPU of an n1 machine, such as nvidia-tesla-t4; empty: the machine type brings its own."
  type        = string
  default     = ""
}

variable "spot" {
  description = "A spot instance: cheaper, and taken back at thirty seconds' notice; the next run begins again."
  type        = bool
  default     = true
}

variable "limit_minutes" {
  description = "The instance ends after this long, whatever it is doing."
  type        = number
  default     = 120
  validation {
    condition     = var.limit_minutes >= 5 && var.limit_minutes <= 2880 && floor(var.limit_minutes) == var.limit_minutes
    error_message = "Whole minutes, from 5 to 2,880."
  }
}

variable "disk_gib" {
  description = "For the system, the image and rows beyond train.max_memory."
  type        = number
  default     = 100
}

variable "boot_image" {
  description = "Ubuntu with cloud-init, the NVIDIA driver, Docker and its GPU runtime."
  type        = string
  default     = "projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570"
}
