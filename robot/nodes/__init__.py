"""The ROS 2 nodes: thin shells around ``dfplanner_robot``'s core, guard and simulation. Only these import rclpy."""
