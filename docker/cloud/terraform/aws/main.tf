# One GPU instance that trains, publishes to Kafka and terminates itself. Three things end it, each without the others:
# run-once's shutdown, the dead man's switch inside (cloud-init), and a schedule of AWS's outside.
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30, < 7.0"
    }
  }
}

locals {
  limit_seconds = var.limit_minutes * 60
  user_data = templatefile("${path.module}/../../cloud-init.yaml.tftpl", {
    cloud         = "aws"
    run_once      = file("${path.module}/../../run-once")
    image         = var.image
    secret        = "aws:${var.secret_arn}"
    limit_seconds = local.limit_seconds
    grace_seconds = 60 # EC2 gives two minutes
    train         = var.train
  })
}

# Amazon's image with the NVIDIA driver, Docker, its GPU runtime and the AWS client.
data "aws_ssm_parameter" "image" {
  name = var.ami_parameter
}

data "aws_iam_policy_document" "instance" {
  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.secret_arn]
  }
}

data "aws_iam_policy_document" "instance_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "instance" {
  name_prefix        = "lapwing-train-"
  assume_role_policy = data.aws_iam_policy_document.instance_trust.json
}

resource "aws_iam_role_policy" "instance" {
  name_prefix = "lapwing-train-"
  role        = aws_iam_role.instance.id
  policy      = data.aws_iam_policy_document.instance.json
}

resource "aws_iam_instance_profile" "instance" {
  name_prefix = "lapwing-train-"
  role        = aws_iam_role.instance.name
}

resource "aws_instance" "train" {
  ami                                  = data.aws_ssm_parameter.image.value
  instance_type                        = var.instance_type
  subnet_id                            = var.subnet_id
  vpc_security_group_ids               = var.security_group_ids
  iam_instance_profile                 = aws_iam_instance_profile.instance.name
  user_data                            = local.user_data
  user_data_replace_on_change          = true
  instance_initiated_shutdown_behavior = "terminate"

  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []
    content {
      market_type = "spot"
      spot_options {
        instance_interruption_behavior = "terminate"
        spot_instance_type             = "one-time"
      }
    }
  }

  metadata_options {
    http_tokens = "required"
  }

  root_block_device {
    volume_size           = var.disk_gib
    volume_type           = "gp3"
    encrypted             = true
    delete_on_termination = true
  }

  tags = { Name = "lapwing-train" }

  # A later apply starts another run only if the run changed, not because Amazon has a newer image.
  lifecycle {
    ignore_changes = [ami]
  }
}

# AWS ends the instance even if its kernel hangs.
data "aws_iam_policy_document" "end" {
  statement {
    actions   = ["ec2:TerminateInstances"]
    resources = [aws_instance.train.arn]
  }
}

data "aws_iam_policy_document" "end_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "end" {
  name_prefix        = "lapwing-end-"
  assume_role_policy = data.aws_iam_policy_document.end_trust.json
}

resource "aws_iam_role_policy" "end" {
  name_prefix = "lapwing-end-"
  role        = aws_iam_role.end.id
  policy      = data.aws_iam_policy_document.end.json
}

resource "aws_scheduler_schedule" "end" {
  name_prefix         = "lapwing-end-"
  schedule_expression = "at(${formatdate("YYYY-MM-DD'T'hh:mm:ss", timeadd(plantimestamp(), "${var.limit_minutes + 30}m"))})"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
    role_arn = aws_iam_role.end.arn
    input    = jsonencode({ InstanceIds = [aws_instance.train.id] })
  }

  # The time counts from the apply that started the instance; another instance gets another schedule.
  lifecycle {
    ignore_changes       = [schedule_expression]
    replace_triggered_by = [aws_instance.train.id]
  }
}
