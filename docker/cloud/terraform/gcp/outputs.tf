output "instance" {
  description = "gcloud compute instances get-serial-port-output … shows the exit record while the instance is there; Cloud Logging keeps it where serial logging is on."
  value       = google_compute_instance.train.name
}

output "user_data" {
  description = "What the instance was told; no credentials are in it."
  value       = local.user_data
}
