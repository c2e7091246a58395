// Package service runs and stops the parts of a program. There are two types: Service, a thing that works until its
// context ends, and Group, which runs several as one.
//
// A Group launches its members in the order in which they were added and does not wait for one to be ready before it
// launches the next: what the others need of a member is opened by its constructor, before it is added.
package service
