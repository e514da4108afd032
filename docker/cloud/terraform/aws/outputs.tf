output "instance" {
  description = "aws ec2 get-console-output --latest --instance-id … shows the exit record, also after the end."
  value       = aws_instance.train.id
}

output "user_data" {
  description = "What the instance was told; no credentials are in it."
  value       = local.user_data
}
