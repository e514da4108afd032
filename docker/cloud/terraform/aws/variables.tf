variable "train" {
  description = "What lapwing train takes: [\"--topic\", \"cars\", \"--model\", \"cars\", \"--engine\", \"cuda\"]. No credentials."
  type        = list(string)
  validation {
    condition     = length(var.train) > 0 && alltrue([for a in var.train : !can(regex("[\\r\\n]|^-X|^--property|^--[a-z-]*password", a))])
    error_message = "Arguments of lapwing train, without line breaks and without the Kafka client's properties: those belong into the secret."
  }
}

variable "secret_arn" {
  description = "Secret of the Secrets Manager that holds lapwing.yaml: the brokers and their credentials."
  type        = string
  validation {
    condition     = can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]+:secret:[A-Za-z0-9/_+=.@-]+$", var.secret_arn))
    error_message = "The ARN of a secret of the Secrets Manager; never its content."
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

variable "subnet_id" {
  description = "Subnet from which the brokers, the registry of the image and the Secrets Manager are reached."
  type        = string
}

variable "security_group_ids" {
  description = "Nothing needs to reach the instance."
  type        = list(string)
  default     = []
}

variable "instance_type" {
  description = "g4dn: T4, g5: A10G, g6: L4, p4d: A100, p5: H100."
  type        = string
  default     = "g6.xlarge"
}

variable "spot" {
  description = "A spot instance: cheaper, and taken back at two minutes' notice; the next run begins again."
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

variable "ami_parameter" {
  description = "Public parameter that names the machine image."
  type        = string
  default     = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
}
