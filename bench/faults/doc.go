// Package faults kills, freezes and cuts off what runs between two topics of a three-broker Apache Kafka while records
// flow and models swap, and has a program that is not Lapwing's own say what became of each record. It is tests only: run
// it by make test-faults, or for an hour by make soak.
package faults
